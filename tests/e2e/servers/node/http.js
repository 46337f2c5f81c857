// SPDX-License-Identifier: Apache-2.0
// Node's own http server. Usage: node http.js PORT
"use strict";
const http = require("node:http");
const { watch } = require("./accesslog");
const { handlers } = require("./service");

const server = http.createServer((req, res) => {
  watch(req, res);
  handlers[req.url.split("/")[1]](req, res);
});
server.keepAliveTimeout = 60000;
server.listen(Number(process.argv[2]), "127.0.0.1");
