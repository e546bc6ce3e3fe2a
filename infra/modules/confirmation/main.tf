# The environment and the permissions of whatever sends the confirmations: the same on ECS and on Lambda,
# so that a stream can move from one to the other and keeps its ledger.
locals {
  optional = {
    AFTERCOMMIT_SMTP_URL             = var.smtp_url
    AFTERCOMMIT_SMTP_PASSWORD_SECRET = var.smtp_password_secret_arn
    AFTERCOMMIT_MAIL                 = var.ses_arns == null ? null : "ses"
    AFTERCOMMIT_REFETCH              = var.refetch ? "true" : null
    AFTERCOMMIT_DEAD_LETTER_COPY     = var.dead_letter_copy_arn
  }

  environment = merge(
    {
      AFTERCOMMIT_TABLE             = var.orders.name
      AFTERCOMMIT_GROUP             = var.group
      AFTERCOMMIT_EFFECT            = var.effect
      AFTERCOMMIT_LEASE_TABLE       = var.tables.leases.name
      AFTERCOMMIT_LEDGER_TABLE      = var.tables.ledger.name
      AFTERCOMMIT_DEAD_LETTER_TABLE = var.tables.dead_letters.name
      AFTERCOMMIT_SUPPRESSION_TABLE = var.tables.suppression.name
      AFTERCOMMIT_MAIL_FROM         = var.mail_from
      AFTERCOMMIT_FILTER            = var.filter
      AFTERCOMMIT_METRICS           = "emf"
      AFTERCOMMIT_LOG               = "json"
    },
    { for name, value in local.optional : name => value if value != null },
    var.settings,
  )
}
