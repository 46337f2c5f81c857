// SPDX-License-Identifier: Apache-2.0
// Node's own HTTP/2 server. Usage: node http2.js PORT. Over TLS if TLS_CERT and TLS_KEY are set.
"use strict";
const fs = require("node:fs");
const http2 = require("node:http2");
const { watch } = require("./accesslog");
const { handlers } = require("./service");

function answer(req, res) {
  watch(req, res);
  handlers[req.url.split("/")[1]](req, res);
}

const { TLS_CERT: cert, TLS_KEY: key } = process.env;
const server = cert
  ? http2.createSecureServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, answer)
  : http2.createServer(answer);
server.listen(Number(process.argv[2]), "127.0.0.1");
