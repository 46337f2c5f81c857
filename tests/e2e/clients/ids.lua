-- SPDX-License-Identifier: Apache-2.0
-- wrk: every request has an id of its own. Usage: wrk ... -s ids.lua URL -- PREFIX
local threads = 0

function setup(thread)
	thread:set("number", threads)
	threads = threads + 1
end

function init(arguments)
	prefix, sent = arguments[1], 0
end

function request()
	sent = sent + 1
	return wrk.format("GET", string.format("/items/%s-%d-%d", prefix, number, sent))
end
