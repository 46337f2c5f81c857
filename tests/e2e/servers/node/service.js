// SPDX-License-Identifier: Apache-2.0
// The handlers that both Node servers route to: (request, response, body) by kind.
"use strict";

const bigBody = Buffer.alloc(200000, "b");

function send(res, status, body) {
  res.writeHead(status, body === null ? {} : { "content-length": body.length });
  res.end(body === null ? undefined : body);
}

function readBody(req, done) {
  const pieces = [];
  req.on("data", (piece) => pieces.push(piece));
  req.on("end", () => done(Buffer.concat(pieces)));
}

const handlers = {
  items(req, res) {
    if (req.method === "DELETE") return send(res, 204, null);
    return send(res, 200, Buffer.from(`item ${req.url.split("/").pop()}\n`));
  },
  echo: (req, res) => readBody(req, (body) => send(res, 200, body)),
  upload: (req, res) => readBody(req, (body) => send(res, 200, Buffer.from(`${body.length}\n`))),
  chunked(req, res) {
    for (let i = 0; i < 5; i++) res.write(`piece ${i}\n`);
    res.end();
  },
  big: (req, res) => send(res, 200, bigBody),
  slow: (req, res) => setTimeout(() => send(res, 200, Buffer.from("slow\n")), 20),
  close(req, res) {
    res.setHeader("connection", "close");
    res.end("closing\n");
  },
  status(req, res) {
    const code = Number(req.url.split("/")[2]);
    send(res, code, code === 204 || code === 304 ? null : Buffer.from("status\n"));
  },
};

module.exports = { handlers };
