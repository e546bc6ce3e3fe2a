# Only what `aftercommit run` calls; tests/suite/repository/iam.rs compares. A transaction needs the permission
# of each of its parts.
data "aws_iam_policy_document" "this" {
  statement {
    sid       = "Start"
    actions   = ["dynamodb:DescribeTable"]
    resources = [var.orders.arn, var.tables.ledger.arn, var.tables.dead_letters.arn, var.tables.suppression.arn]
  }

  statement {
    sid       = "Ledger"
    actions   = ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem"]
    resources = [var.tables.ledger.arn]
  }

  statement {
    sid       = "DeadLetters"
    actions   = ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"]
    resources = [var.tables.dead_letters.arn]
  }

  statement {
    sid       = "Suppression"
    actions   = ["dynamodb:GetItem"]
    resources = [var.tables.suppression.arn]
  }

  dynamic "statement" {
    for_each = var.refetch ? [var.orders.arn] : []

    content {
      sid       = "Orders"
      actions   = ["dynamodb:BatchGetItem", "dynamodb:GetItem"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = var.smtp_password_secret_arn[*]

    content {
      sid       = "Password"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = var.ses_arns == null ? [] : [var.ses_arns]

    content {
      sid       = "Mail"
      actions   = ["ses:SendEmail", "ses:SendRawEmail"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = local.queue[*]

    content {
      sid       = "CopyToQueue"
      actions   = ["sqs:GetQueueUrl", "sqs:SendMessage"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = local.topic[*]

    content {
      sid       = "CopyToTopic"
      actions   = ["sns:Publish"]
      resources = [statement.value]
    }
  }
}

locals {
  copied_by = try(split(":", var.dead_letter_copy_arn)[2], "")
  queue     = local.copied_by == "sqs" ? var.dead_letter_copy_arn : null
  topic     = local.copied_by == "sns" ? var.dead_letter_copy_arn : null
}
