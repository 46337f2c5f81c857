// SPDX-License-Identifier: Apache-2.0
// Node's own HTTP/2 server without TLS. Usage: node http2.js PORT
"use strict";
const http2 = require("node:http2");
const { watch } = require("./accesslog");
const { handlers } = require("./service");

const server = http2.createServer((req, res) => {
  watch(req, res);
  handlers[req.url.split("/")[1]](req, res);
});
server.listen(Number(process.argv[2]), "127.0.0.1");
