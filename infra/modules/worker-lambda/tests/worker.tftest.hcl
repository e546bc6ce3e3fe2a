mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/one" }
  }

  mock_resource "aws_lambda_function" {
    defaults = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:aftercommit" }
  }

  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:eu-central-1:123456789012:given-up" }
  }
}

variables {
  confirmation = {
    orders = {
      name       = "orders"
      arn        = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders"
      stream_arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000"
    }
    tables = {
      leases = { name = "leases", arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/leases" }
      ledger = { name = "ledger", arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/ledger" }
    }
    group       = "confirmation"
    effect      = "confirmation"
    filter      = "{\"eventName\":[\"INSERT\"]}"
    environment = { AFTERCOMMIT_TABLE = "orders" }
    policy      = "{}"
  }
  # Any file will do.
  package = "main.tf"
}

run "lambda_gives_up_nothing_by_itself" {
  assert {
    condition = (
      aws_lambda_event_source_mapping.stream.function_response_types == toset(["ReportBatchItemFailures"])
      && aws_lambda_event_source_mapping.stream.bisect_batch_on_function_error
      && aws_lambda_event_source_mapping.stream.maximum_record_age_in_seconds == -1
      && aws_lambda_event_source_mapping.stream.maximum_retry_attempts == -1
      && aws_lambda_event_source_mapping.stream.destination_config[0].on_failure[0].destination_arn == aws_sqs_queue.given_up.arn
    )
    error_message = "Partial answers, bisection, no limits, and a queue for what was given up all the same."
  }
}

run "a_stream_that_was_replaced_is_read_to_its_end" {
  variables {
    earlier_streams = ["arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2025-12-31T00:00:00.000"]
  }

  assert {
    condition = (
      tolist([for one in aws_lambda_event_source_mapping.earlier : one.event_source_arn]) == var.earlier_streams
      && alltrue([for one in aws_lambda_event_source_mapping.earlier : one.starting_position == "TRIM_HORIZON"])
      && alltrue([for one in aws_lambda_event_source_mapping.earlier : one.function_response_types == toset(["ReportBatchItemFailures"])])
      && aws_lambda_event_source_mapping.stream.event_source_arn == var.confirmation.orders.stream_arn
    )
    error_message = "The earlier stream has a mapping of its own, beside that of the table's stream."
  }
}

run "records_are_filtered_before_the_function_is_called" {
  assert {
    condition     = [for one in aws_lambda_event_source_mapping.stream.filter_criteria[0].filter : one.pattern] == [var.confirmation.filter]
    error_message = "By the same pattern as on ECS."
  }
}

run "the_function_is_the_binary_itself" {
  assert {
    condition     = aws_lambda_function.worker.runtime == "provided.al2023" && aws_lambda_function.worker.handler == "bootstrap" && aws_lambda_function.worker.environment[0].variables == tomap({ AFTERCOMMIT_TABLE = "orders" })
    error_message = "No other runtime, and the confirmation's settings."
  }
}

run "a_call_has_time_for_more_than_its_end" {
  command = plan

  variables {
    timeout = 29
  }

  expect_failures = [var.timeout]
}
