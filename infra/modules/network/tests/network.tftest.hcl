mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c", "eu-central-1d"] }
  }

  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }

  mock_data "aws_vpc_endpoint_service" {
    defaults = { availability_zones = ["eu-central-1a", "eu-central-1c"] }
  }

  override_data {
    target = data.aws_vpc_endpoint_service.streams
    values = { availability_zones = ["eu-central-1b"] }
  }

  mock_resource "aws_vpc_endpoint" {
    defaults = { dns_entry = [{ dns_name = "vpce-1.streams.dynamodb.eu-central-1.vpce.amazonaws.com", hosted_zone_id = "Z1" }] }
  }
}

run "the_streams_have_an_address_of_their_own" {
  assert {
    condition     = output.streams_endpoint_url == "https://vpce-1.streams.dynamodb.eu-central-1.vpce.amazonaws.com"
    error_message = "The worker is told the endpoint's own name."
  }

  assert {
    condition     = aws_vpc_endpoint.streams.service_name == "com.amazonaws.eu-central-1.dynamodb-streams" && aws_vpc_endpoint.streams.private_dns_enabled != true
    error_message = "The streams' endpoint has no private name."
  }
}

run "three_zones_and_no_way_out" {
  assert {
    condition     = length(output.subnet_ids) == 3 && length(distinct([for subnet in aws_subnet.private : subnet.cidr_block])) == 3
    error_message = "One subnet in each of three zones."
  }

  assert {
    condition     = toset(keys(aws_vpc_endpoint.gateway)) == toset(["dynamodb", "s3"])
    error_message = "Tables and image layers come by gateways, which cost nothing."
  }

  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : length(endpoint.subnet_ids) == 2])
    error_message = "An endpoint is only where its service is."
  }

  assert {
    condition     = aws_vpc_endpoint.streams.subnet_ids == toset([aws_subnet.private["eu-central-1b"].id])
    error_message = "So is that of the streams."
  }
}
