// SPDX-License-Identifier: Apache-2.0
// Node's http server with an SDK that the application sets up by itself, so that no variable and no
// argument tells. Usage: node app.js PORT BACKEND_PORT TRACES_URL
"use strict";
const { registerInstrumentations } = require("@opentelemetry/instrumentation");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-proto");
const { BatchSpanProcessor, NodeTracerProvider } = require("@opentelemetry/sdk-trace-node");

const [port, backend, url] = process.argv.slice(2);
const batches = new BatchSpanProcessor(new OTLPTraceExporter({ url }), { scheduledDelayMillis: 50 });
new NodeTracerProvider({ spanProcessors: [batches] }).register();
registerInstrumentations({ instrumentations: [new HttpInstrumentation()] });

const http = require("node:http");
const net = require("node:net");

function plain(ident, done) {
  const socket = net.connect(Number(backend), "127.0.0.1", () => {
    socket.write(`GET /plain/${ident} HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n`);
  });
  socket.resume();
  socket.on("close", done);
}

http
  .createServer((req, res) => {
    const [, kind, ident] = req.url.split("/");
    if (kind !== "call") {
      res.end("item\n");
      return;
    }
    http.get(`http://127.0.0.1:${backend}/traced/${ident}`, (answer) => {
      answer.resume();
      answer.on("end", () => plain(ident, () => res.end("called\n")));
    });
  })
  .listen(Number(port), "127.0.0.1");
