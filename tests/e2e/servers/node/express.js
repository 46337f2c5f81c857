// SPDX-License-Identifier: Apache-2.0
// The same service behind express. Usage: node express.js PORT
"use strict";
const express = require("express");
const { watch } = require("./accesslog");
const { handlers } = require("./service");

const app = express();
app.disable("etag");
app.use((req, res, next) => {
  watch(req, res);
  next();
});
for (const [kind, handler] of Object.entries(handlers)) {
  app.all(kind === "status" ? "/status/:code/:id" : `/${kind}/:id`, handler);
}
const server = app.listen(Number(process.argv[2]), "127.0.0.1");
server.keepAliveTimeout = 60000;
