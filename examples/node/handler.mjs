// A handler in Node, without a package: node examples/node/handler.mjs 8080
import { createServer } from "node:http";

createServer(async (request, response) => {
  let body = "";
  for await (const part of request.setEncoding("utf8")) body += part;
  const records = JSON.parse(body).Records; // One, unless the worker has --batch.
  if (records.some(({ dynamodb: { NewImage } }) => NewImage && !NewImage.email)) {
    response.writeHead(422).end("the order has no email"); // A dead letter, with this as its reason.
    return;
  }
  for (const { dynamodb, aftercommit = request.headers } of records) // May come again: with the same key.
    console.log("handled", aftercommit["idempotency-key"], JSON.stringify(dynamodb.Keys));
  response.writeHead(204).end();
}).listen(Number(process.argv[2]), "127.0.0.1");
