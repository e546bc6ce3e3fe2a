#!/usr/bin/env bash
# Creates the table for development: `orders`, with a stream. Inside LocalStack's container it runs
# by itself once LocalStack is ready; elsewhere: localstack/init/10-tables.sh [ENDPOINT].
# A table that is there already stays as it is.
#
# The lease and the ledger tables are not here: `aftercommit tables create` makes those, as it does
# in the real service.
set -euo pipefail

endpoint=${1:-${AFTERCOMMIT_LOCALSTACK_URL:-http://127.0.0.1:4566}}

# curl rather than the AWS command line, as that is on every machine. LocalStack checks no
# signature; it only reads the region out of it.
answer=$(curl --silent --show-error --noproxy '*' --max-time 60 "${endpoint%/}/" \
    -H 'Content-Type: application/x-amz-json-1.0' \
    -H 'X-Amz-Target: DynamoDB_20120810.CreateTable' \
    -H 'Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0' \
    -d '{
        "TableName": "orders",
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
        "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    }')

case $answer in
    *'"TableDescription"'*) echo "table orders: created" ;;
    *ResourceInUseException*) echo "table orders: exists" ;;
    *)
        echo "table orders: not created: $answer" >&2
        exit 1
        ;;
esac
