# A sample table of orders, and workers on ECS that confirm each order once. The mails go through the
# SMTP server of Amazon SES, which the private network reaches by an endpoint.
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

resource "aws_ecr_repository" "worker" {
  name                 = "aftercommit"
  image_tag_mutability = "IMMUTABLE"

  image_scanning_configuration {
    scan_on_push = true
  }
}

resource "aws_sns_topic" "alarms" {
  name = "aftercommit-alarms"
}

module "network" {
  source = "../../modules/network"
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
  source = "../../modules/worker-ecs"

  confirmation         = module.confirmation.confirmation
  image                = "${aws_ecr_repository.worker.repository_url}:${var.image_tag}"
  ecr_repository_arn   = aws_ecr_repository.worker.arn
  vpc_id               = module.network.vpc_id
  subnet_ids           = module.network.subnet_ids
  streams_endpoint_url = module.network.streams_endpoint_url
}

module "alarms" {
  source = "../../modules/alarms"

  table   = module.tables.orders.name
  actions = [aws_sns_topic.alarms.arn]
}
