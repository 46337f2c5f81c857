// SPDX-License-Identifier: Apache-2.0
// Node's own http server. Usage: node http.js PORT. Over TLS if TLS_CERT and TLS_KEY are set.
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const { watch } = require("./accesslog");
const { handlers } = require("./service");

function answer(req, res) {
  watch(req, res);
  handlers[req.url.split("/")[1]](req, res);
}

const { TLS_CERT: cert, TLS_KEY: key } = process.env;
const server = cert
  ? https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, answer)
  : http.createServer(answer);
server.keepAliveTimeout = 60000;
server.listen(Number(process.argv[2]), "127.0.0.1");
