mock_provider "aws" {}

variables {
  orders = {
    name       = "orders"
    arn        = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders"
    stream_arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000"
  }
  tables = {
    leases       = { name = "l", arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/l" }
    ledger       = { name = "e", arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/e" }
    dead_letters = { name = "d", arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/d" }
    suppression  = { name = "s", arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/s" }
  }
  mail_from = "orders@example.com"
}

run "what_is_not_used_is_not_allowed" {
  variables {
    smtp_url = "smtp://mail.example.com"
  }

  assert {
    condition     = [for one in data.aws_iam_policy_document.this.statement : one.sid] == ["Start", "Ledger", "DeadLetters", "Suppression"]
    error_message = "Without a secret, SES, refetch and copies there are four statements."
  }

  assert {
    condition     = output.confirmation.environment.AFTERCOMMIT_SMTP_URL == "smtp://mail.example.com" && !contains(keys(output.confirmation.environment), "AFTERCOMMIT_MAIL")
    error_message = "The mail server is told, and nothing that is not set."
  }
}

run "what_is_used_is_allowed_and_told" {
  variables {
    ses_arns             = ["arn:aws:ses:eu-central-1:123456789012:identity/example.com"]
    refetch              = true
    dead_letter_copy_arn = "arn:aws:sqs:eu-central-1:123456789012:letters"
    settings             = { AFTERCOMMIT_ON_AMBIGUOUS = "park" }
  }

  assert {
    condition     = [for one in data.aws_iam_policy_document.this.statement : one.sid] == ["Start", "Ledger", "DeadLetters", "Suppression", "Orders", "Mail", "CopyToQueue"]
    error_message = "One statement for each thing that is used."
  }

  assert {
    condition     = output.confirmation.environment.AFTERCOMMIT_MAIL == "ses" && output.confirmation.environment.AFTERCOMMIT_REFETCH == "true" && output.confirmation.environment.AFTERCOMMIT_ON_AMBIGUOUS == "park"
    error_message = "Each of them is told, and so are further settings."
  }
}

run "one_way_out_for_mails" {
  command = plan

  variables {
    smtp_url = "smtp://mail.example.com"
    ses_arns = ["arn:aws:ses:eu-central-1:123456789012:identity/example.com"]
  }

  expect_failures = [var.smtp_url]
}

run "some_way_out_for_mails" {
  command = plan

  expect_failures = [var.smtp_url]
}
