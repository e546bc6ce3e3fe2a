mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }

  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/one" }
  }
}

variables {
  confirmation = {
    orders = {
      name       = "orders"
      arn        = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders"
      stream_arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000"
    }
    tables = {
      leases       = { name = "leases", arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/leases" }
      ledger       = { name = "ledger", arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/ledger" }
      dead_letters = { name = "letters", arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/letters" }
    }
    group       = "confirmation"
    effect      = "confirmation"
    filter      = "{}"
    environment = { AFTERCOMMIT_TABLE = "orders" }
    policy      = "{}"
  }
  image                = "aftercommit:1"
  vpc_id               = "vpc-1"
  subnet_ids           = ["subnet-1", "subnet-2", "subnet-3"]
  streams_endpoint_url = "https://vpce-1.example"
}

run "the_container_has_time_to_end_and_cannot_write" {
  assert {
    condition = alltrue([for one in jsondecode(aws_ecs_task_definition.worker.container_definitions) :
      one.stopTimeout == 120 && one.readonlyRootFilesystem && one.user == "65532:65532"
      && one.linuxParameters.capabilities.drop == ["ALL"]
    ])
    error_message = "120 s to drain, a root file system that cannot be written, nobody's user."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.worker.container_definitions)[0].healthCheck.command == ["CMD", "/aftercommit", "health"]
    error_message = "The worker says itself whether it is well."
  }
}

run "the_worker_is_told_where_everything_is" {
  assert {
    condition = {
      for one in jsondecode(aws_ecs_task_definition.worker.container_definitions)[0].environment : one.name => one.value
      } == {
      AFTERCOMMIT_HTTP                 = "127.0.0.1:9464"
      AFTERCOMMIT_LEASE_TABLE          = "leases"
      AFTERCOMMIT_STREAMS_ENDPOINT_URL = "https://vpce-1.example"
      AFTERCOMMIT_TABLE                = "orders"
      AWS_REGION                       = "eu-central-1"
    }
    error_message = "The environment is the confirmation's, with the leases and the streams' endpoint."
  }
}

run "tasks_are_added_when_orders_wait" {
  assert {
    condition     = aws_appautoscaling_target.worker.min_capacity == 3 && aws_appautoscaling_policy.lag.target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].metric_name == "aftercommit_lag_seconds"
    error_message = "One task for each zone, more by the lag."
  }
}

run "two_zones_are_too_few" {
  command = plan

  variables {
    subnet_ids = ["subnet-1", "subnet-2"]
  }

  expect_failures = [var.subnet_ids]
}
