# A sample table of orders, and a Lambda function that confirms each order once, through a mail server
# on the internet.
provider "aws" {
  region = var.region
}

module "tables" {
  source = "../../modules/tables"

  orders_table        = "orders"
  deletion_protection = var.deletion_protection
}

# Without a value here: a password in the state could be read there. Set it once:
# aws secretsmanager put-secret-value --secret-id aftercommit/smtp-password --secret-string ...
resource "aws_secretsmanager_secret" "smtp_password" {
  name        = "aftercommit/smtp-password"
  description = "The mail server's password"
}

resource "aws_sns_topic" "alarms" {
  name = "aftercommit-alarms"
}

module "confirmation" {
  source = "../../modules/confirmation"

  orders                   = module.tables.orders
  tables                   = module.tables.tables
  mail_from                = var.mail_from
  smtp_url                 = var.smtp_url
  smtp_password_secret_arn = aws_secretsmanager_secret.smtp_password.arn
}

module "worker" {
  source = "../../modules/worker-lambda"

  confirmation = module.confirmation.confirmation
  package      = var.package
}

module "alarms" {
  source = "../../modules/alarms"

  table   = module.tables.orders.name
  actions = [aws_sns_topic.alarms.arn]
  lambda  = module.worker
}
