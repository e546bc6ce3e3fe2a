// A handler in Node, without a package: node examples/node/handler.mjs 8080
import { createServer } from "node:http";

createServer(async (request, response) => {
  let body = "";
  for await (const part of request.setEncoding("utf8")) body += part;
  const { Keys, NewImage } = JSON.parse(body).Records[0].dynamodb;
  if (NewImage && !NewImage.email) {
    response.writeHead(422).end("the order has no email"); // A dead letter, with this as its reason.
    return;
  }
  console.log("handled", request.headers["idempotency-key"], JSON.stringify(Keys)); // May come again: with the same key.
  response.writeHead(204).end();
}).listen(Number(process.argv[2]), "127.0.0.1");
