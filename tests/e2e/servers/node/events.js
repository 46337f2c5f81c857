// SPDX-License-Identifier: Apache-2.0
// Server-sent events. Usage: node events.js PORT
// GET /events/COUNT/ID sends COUNT events and ends; with COUNT 0, one event, and never ends.
"use strict";
const fs = require("node:fs");
const http = require("node:http");

const log = fs.openSync(process.env.ACCESS_LOG, "a");
const server = http.createServer((req, res) => {
  const started = process.hrtime.bigint();
  const [, , count, id] = req.url.split("/");
  let sent = 0;
  let bytes = 0;
  function write() {
    const event = `id: ${sent}\ndata: ${"e".repeat((sent * 37) % 900)}\n\n`;
    res.write(event);
    sent += 1;
    bytes += event.length;
    if (sent < Number(count)) return void setTimeout(write, 2);
    if (count === "0") return undefined;
    const took = Number(process.hrtime.bigint() - started);
    res.end();
    return fs.writeSync(log, `${JSON.stringify({ id, bytes, took })}\n`);
  }
  res.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  write();
});
server.keepAliveTimeout = 60000;
server.listen(Number(process.argv[2]), "127.0.0.1");
