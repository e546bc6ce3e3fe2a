data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.this.account_id]
    }
  }
}

data "aws_caller_identity" "this" {}

# What the worker does, besides confirming: it reads the stream, and shares it with others. Only what
# `aftercommit run` calls; tests/suite/repository/iam.rs compares.
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

  statement {
    sid       = "LeasesAtStart"
    actions   = ["dynamodb:DescribeTable"]
    resources = [var.confirmation.tables.leases.arn]
  }

  statement {
    sid = "Leases"
    actions = [
      "dynamodb:ConditionCheckItem",
      "dynamodb:DeleteItem",
      "dynamodb:GetItem",
      "dynamodb:PutItem",
      "dynamodb:Query",
      "dynamodb:UpdateItem",
    ]
    resources = [var.confirmation.tables.leases.arn]
  }

  # The status page counts the orders in doubt.
  statement {
    sid       = "Doubts"
    actions   = ["dynamodb:Query"]
    resources = ["${var.confirmation.tables.ledger.arn}/index/attention"]
  }

  # It redrives what it rescued from an outage.
  statement {
    sid       = "Redrive"
    actions   = ["dynamodb:ConditionCheckItem", "dynamodb:DeleteItem"]
    resources = [var.confirmation.tables.dead_letters.arn]
  }
}

# What ECS does to start it. The token of ECR belongs to no resource.
data "aws_iam_policy_document" "start" {
  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.worker.arn}:*"]
  }

  dynamic "statement" {
    for_each = var.ecr_repository_arn[*]

    content {
      sid       = "Image"
      actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = var.ecr_repository_arn[*]

    content {
      sid       = "ImageToken"
      actions   = ["ecr:GetAuthorizationToken"]
      resources = ["*"]
    }
  }
}

resource "aws_iam_role" "worker" {
  name               = "${var.name}-worker"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "worker" {
  name   = "worker"
  role   = aws_iam_role.worker.id
  policy = data.aws_iam_policy_document.worker.json
}

resource "aws_iam_role" "start" {
  name               = "${var.name}-start"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "start" {
  name   = "start"
  role   = aws_iam_role.start.id
  policy = data.aws_iam_policy_document.start.json
}
