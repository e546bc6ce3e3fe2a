locals {
  environment = merge(
    {
      AFTERCOMMIT_LEASE_TABLE = var.confirmation.tables.leases.name
      # For the health check; nobody outside of the task reaches it.
      AFTERCOMMIT_HTTP = "127.0.0.1:9464"
      AWS_REGION       = data.aws_region.this.name
    },
    var.streams_endpoint_url == null ? {} : { AFTERCOMMIT_STREAMS_ENDPOINT_URL = var.streams_endpoint_url },
    var.confirmation.environment,
  )
}

data "aws_region" "this" {}

resource "aws_cloudwatch_log_group" "worker" {
  name              = "/ecs/${var.name}"
  retention_in_days = var.log_retention_days
}

resource "aws_ecs_cluster" "this" {
  name = var.name

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_task_definition" "worker" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.start.arn
  task_role_arn            = aws_iam_role.worker.arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  container_definitions = jsonencode([{
    name                   = "worker"
    image                  = var.image
    command                = ["run"]
    essential              = true
    user                   = "65532:65532"
    readonlyRootFilesystem = true
    environment            = [for name, value in local.environment : { name = name, value = value }]

    # Running records are finished, the position is saved, the shards are handed over: that takes
    # --handover-timeout (30 s) and a little, and a mail server may be slow. 120 is what Fargate allows.
    stopTimeout = 120

    # The loop that reads, not the mail server: a new task would not fix that.
    healthCheck = {
      command     = ["CMD", "/aftercommit", "health"]
      interval    = 30
      timeout     = 5
      retries     = 3
      startPeriod = 60
    }

    linuxParameters = {
      capabilities = { drop = ["ALL"] }
    }

    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.worker.name
        awslogs-region        = data.aws_region.this.name
        awslogs-stream-prefix = "worker"
        # Logs that are slow do not hold back mails.
        mode            = "non-blocking"
        max-buffer-size = "25m"
      }
    }
  }])
}

resource "aws_security_group" "worker" {
  name        = var.name
  description = "The workers of ${var.name}: nobody calls them"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "worker" {
  for_each = { for port in concat([443], var.smtp_ports) : tostring(port) => port }

  security_group_id = aws_security_group.worker.id
  description       = each.value == 443 ? "AWS" : "The mail server"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
}

# Task protection is not used: it keeps ECS from stopping a task, deployments too, until the task says
# otherwise. A worker may be stopped at any time: on SIGTERM it hands its shards over at once, and
# after a SIGKILL others take them by the leases.
resource "aws_ecs_service" "worker" {
  name                          = var.name
  cluster                       = aws_ecs_cluster.this.id
  task_definition               = aws_ecs_task_definition.worker.arn
  launch_type                   = "FARGATE"
  desired_count                 = var.min_tasks
  propagate_tags                = "SERVICE"
  availability_zone_rebalancing = "ENABLED"

  # New ones come before old ones go, and a version that does not become healthy goes back.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets         = var.subnet_ids
    security_groups = [aws_security_group.worker.id]
  }

  lifecycle {
    ignore_changes = [desired_count]
  }

  # A task that starts before it may do its work fails, and some that fail stop the deployment.
  depends_on = [
    aws_iam_role_policy.start,
    aws_iam_role_policy.worker,
    aws_vpc_security_group_egress_rule.worker,
  ]
}

resource "aws_appautoscaling_target" "worker" {
  service_namespace  = "ecs"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.worker.name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = var.min_tasks
  max_capacity       = var.max_tasks
}

# A shard is read by one worker at a time: more tasks than shards do not help. Missing data does not scale
# in.
resource "aws_appautoscaling_policy" "lag" {
  name               = "${var.name}-lag"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.worker.service_namespace
  resource_id        = aws_appautoscaling_target.worker.resource_id
  scalable_dimension = aws_appautoscaling_target.worker.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = var.target_lag_seconds
    scale_out_cooldown = 120
    scale_in_cooldown  = 600

    customized_metric_specification {
      namespace   = "aftercommit"
      metric_name = "aftercommit_lag_seconds"
      statistic   = "Maximum"

      dimensions {
        name  = "group"
        value = var.confirmation.group
      }

      dimensions {
        name  = "effect"
        value = var.confirmation.effect
      }

      dimensions {
        name  = "table"
        value = var.confirmation.orders.name
      }
    }
  }
}
