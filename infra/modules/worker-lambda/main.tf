resource "aws_cloudwatch_log_group" "worker" {
  name              = "/aws/lambda/${var.name}"
  retention_in_days = var.log_retention_days
}

resource "aws_lambda_function" "worker" {
  function_name                  = var.name
  description                    = "Confirms the orders of ${var.confirmation.orders.name}"
  filename                       = var.package
  source_code_hash               = filebase64sha256(var.package)
  handler                        = "bootstrap"
  runtime                        = "provided.al2023"
  architectures                  = [var.architecture]
  role                           = aws_iam_role.worker.arn
  memory_size                    = var.memory
  timeout                        = var.timeout
  reserved_concurrent_executions = var.concurrency

  environment {
    variables = var.confirmation.environment
  }

  # Without the right to write them, the first logs would be lost.
  depends_on = [aws_cloudwatch_log_group.worker, aws_iam_role_policy.worker]
}

resource "aws_lambda_event_source_mapping" "stream" {
  function_name     = aws_lambda_function.worker.arn
  event_source_arn  = var.confirmation.orders.stream_arn
  enabled           = var.enabled
  starting_position = var.starting_position

  batch_size                         = var.batch_size
  maximum_batching_window_in_seconds = 0
  parallelization_factor             = var.parallelization_factor

  # The function answers with the first record that it did not finish; without this, Lambda takes
  # that for success. It writes down what it gives up, so Lambda itself gives up nothing.
  function_response_types        = ["ReportBatchItemFailures"]
  bisect_batch_on_function_error = true
  maximum_retry_attempts         = -1
  maximum_record_age_in_seconds  = -1

  filter_criteria {
    filter {
      pattern = var.confirmation.filter
    }
  }

  destination_config {
    on_failure {
      destination_arn = aws_sqs_queue.given_up.arn
    }
  }

  metrics_config {
    metrics = ["EventCount"]
  }

  depends_on = [aws_iam_role_policy.worker]
}

# A stream that was switched off keeps its last records for 24 hours. What was mailed before is in the
# ledger and is not mailed again.
resource "aws_lambda_event_source_mapping" "earlier" {
  for_each = toset(var.earlier_streams)

  function_name     = aws_lambda_function.worker.arn
  event_source_arn  = each.value
  enabled           = var.enabled
  starting_position = "TRIM_HORIZON"

  batch_size                         = var.batch_size
  maximum_batching_window_in_seconds = 0
  parallelization_factor             = var.parallelization_factor

  function_response_types        = ["ReportBatchItemFailures"]
  bisect_batch_on_function_error = true
  maximum_retry_attempts         = -1
  maximum_record_age_in_seconds  = -1

  filter_criteria {
    filter {
      pattern = var.confirmation.filter
    }
  }

  destination_config {
    on_failure {
      destination_arn = aws_sqs_queue.given_up.arn
    }
  }

  metrics_config {
    metrics = ["EventCount"]
  }

  # The mapping above may have read this stream until now: a function has one mapping for a stream.
  depends_on = [aws_lambda_event_source_mapping.stream]
}

# Where Lambda would tell of batches that it gave up all the same: by their place in the stream, without
# the records. What the function could not handle is in the dead letters' table, whole.
resource "aws_sqs_queue" "given_up" {
  name                      = "${var.name}-given-up"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}
