output "confirmation" {
  description = "For `worker-ecs` or `worker-lambda`"
  value = {
    orders      = var.orders
    tables      = var.tables
    group       = var.group
    effect      = var.effect
    filter      = var.filter
    environment = local.environment
    policy      = data.aws_iam_policy_document.this.json
  }
}
