// An origin that writes down what it read: node's own server. node origin.mjs PORT FILE
import { createHash } from "node:crypto";
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";

const [port, file] = process.argv.slice(2);
const answer = (request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("error", () => {});
  request.on("end", () => {
    if (!request.complete) return;
    const body = Buffer.concat(pieces);
    const record = {
      method: request.method,
      target: request.url,
      length: body.length,
      digest: createHash("sha256").update(body).digest("hex").slice(0, 16),
      id: request.headers["x-request-id"] ?? null,
      client: request.headers["x-forwarded-for"] ?? null,
    };
    appendFileSync(file, JSON.stringify(record) + "\n");
    response.writeHead(200, { "content-length": 2 });
    response.end("ok");
  });
};
createServer(answer).listen(Number(port), "127.0.0.1");
