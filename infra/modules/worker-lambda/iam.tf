data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

# The function's own calls are in the module `confirmation`; these are Lambda's calls in its name.
#
# Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/iam-policy-example-lamda-process-dynamodb-streams.html
data "aws_iam_policy_document" "worker" {
  source_policy_documents = [var.confirmation.policy]

  # The ARN of a stream ends in the time at which it was enabled.
  statement {
    sid = "Stream"
    actions = [
      "dynamodb:DescribeStream",
      "dynamodb:GetRecords",
      "dynamodb:GetShardIterator",
      "dynamodb:ListStreams",
    ]
    resources = ["${var.confirmation.orders.arn}/stream/*"]
  }

  # That records may be lost, where the event source fell behind by most of a day.
  statement {
    sid = "Gaps"
    actions = [
      "dynamodb:ConditionCheckItem",
      "dynamodb:GetItem",
      "dynamodb:UpdateItem",
    ]
    resources = [var.confirmation.tables.leases.arn]
  }

  # How many orders wait, for the alarms.
  statement {
    sid       = "Attention"
    actions   = ["dynamodb:Query"]
    resources = ["${var.confirmation.tables.ledger.arn}/index/attention"]
  }

  statement {
    sid       = "GivenUp"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.given_up.arn]
  }

  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.worker.arn}:*"]
  }
}

resource "aws_iam_role" "worker" {
  name               = "${var.name}-function"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "worker" {
  name   = "worker"
  role   = aws_iam_role.worker.id
  policy = data.aws_iam_policy_document.worker.json
}
