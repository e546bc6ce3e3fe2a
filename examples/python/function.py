"""An AWS Lambda function with Powertools, as it is on Lambda. Without Lambda and without a container:

    pip install awslambdaric aws-lambda-powertools
    aftercommit run --handler-command "python -m awslambdaric function.handler" ...
"""
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

processor = BatchProcessor(event_type=EventType.DynamoDBStreams, raise_on_entire_batch_failure=False)


def place(record):
    order = record.dynamodb.new_image
    if "email" not in order:
        raise ValueError("the order has no email")
    print("handled", order["id"], flush=True)


def handler(event, context):
    return process_partial_response(
        event=event, record_handler=place, processor=processor, context=context
    )
