// SPDX-License-Identifier: Apache-2.0
// The demo's reviews in Node.js: what customers say, and whether the product can be had.
'use strict';

const fs = require('node:fs');
const http = require('node:http');

const own = Number(process.env.DEMO_REVIEWS);
const stock = Number(process.env.DEMO_STOCK || 0); // 0: there is none
const lines = fs.openSync(process.env.DEMO_LOG, 'a');
const agent = new http.Agent({ keepAlive: true });

function note(kind, method, port, path, status) {
  fs.writeSync(lines, JSON.stringify({ kind, method, port, path, status }) + '\n');
}

function get(port, path) {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: '127.0.0.1', port, path, agent }, (response) => {
      const pieces = [];
      response.on('data', (piece) => pieces.push(piece));
      response.on('end', () => {
        note('client', 'GET', port, path, response.statusCode);
        resolve(JSON.parse(Buffer.concat(pieces)));
      });
    });
    request.on('error', reject);
  });
}

async function answer(request) {
  const parts = request.url.match(/^\/products\/(\d+)\/reviews$/);
  if (!parts) return [404, { error: 'no such product' }];
  const reviews = [{ stars: (Number(parts[1]) % 5) + 1 }];
  if (!stock) return [200, { reviews }];
  return [200, { reviews, stock: await get(stock, `/stock/${parts[1]}`) }];
}

const server = http.createServer((request, response) => {
  request.resume();
  answer(request)
    .catch((error) => [502, { error: String(error) }])
    .then(([status, said]) => {
      const body = JSON.stringify(said);
      const length = Buffer.byteLength(body);
      response.on('finish', () => note('server', request.method, own, request.url, status));
      response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': length });
      response.end(body);
    });
});
server.keepAliveTimeout = 600_000; // ms: the demo's connections stay
server.listen(own, '127.0.0.1');
