// SPDX-License-Identifier: Apache-2.0
// One JSON line a request, appended to the file named by ACCESS_LOG.
"use strict";
const fs = require("node:fs");
const fd = fs.openSync(process.env.ACCESS_LOG, "a");

/** Counts the body bytes of one exchange; its duration is until the answer is handed over. */
function watch(req, res) {
  const started = process.hrtime.bigint();
  let ended = started;
  const path = req.url;
  const peer_port = req.socket.remotePort;
  let received = 0;
  let sent = 0;
  req.on("data", (data) => (received += data.length));
  const count = (data) => {
    if (data && typeof data !== "function" && req.method !== "HEAD") sent += Buffer.byteLength(data);
  };
  let inside = false; // end() may call write() itself
  for (const name of ["write", "end"]) {
    const original = res[name];
    res[name] = function (data, ...rest) {
      if (!inside) {
        count(data);
        // Not when "finish" comes: the event loop may do something else first.
        ended = process.hrtime.bigint();
      }
      inside = true;
      try {
        return original.call(this, data, ...rest);
      } finally {
        inside = false;
      }
    };
  }
  res.on("finish", () => {
    const duration_us = Number((ended - started) / 1000n);
    const line = {
      id: path.split("/").pop(), method: req.method, path, status: res.statusCode,
      request_bytes: received, response_bytes: sent, duration_us, peer_port,
    };
    fs.writeSync(fd, JSON.stringify(line) + "\n");
  });
}

module.exports = { watch };
