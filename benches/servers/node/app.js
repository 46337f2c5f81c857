// SPDX-License-Identifier: Apache-2.0
// Node's own HTTP server, without an access log. Usage: node app.js PORT
"use strict";
const http = require("node:http");

const server = http.createServer((request, response) => {
  const body = `item ${request.url.split("/").pop()}\n`;
  response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": Buffer.byteLength(body) });
  response.end(body);
});
server.keepAliveTimeout = 60_000;
server.listen(Number(process.argv[2]), "127.0.0.1");
