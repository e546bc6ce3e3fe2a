# Private subnets in three zones, without a way out: what the worker talks to comes in by endpoints.
data "aws_availability_zones" "here" {
  state = "available"

  filter {
    name   = "zone-type"
    values = ["availability-zone"]
  }
}

data "aws_region" "this" {}

# Not every service is in every zone.
data "aws_vpc_endpoint_service" "each" {
  for_each = var.services

  service      = each.key
  service_type = "Interface"
}

data "aws_vpc_endpoint_service" "streams" {
  service      = "dynamodb-streams"
  service_type = "Interface"
}

locals {
  zones = slice(data.aws_availability_zones.here.names, 0, 3)
}

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_hostnames = true
  enable_dns_support   = true

  tags = { Name = var.name }
}

# Without rules, because nothing uses it.
resource "aws_default_security_group" "unused" {
  vpc_id = aws_vpc.this.id
}

resource "aws_subnet" "private" {
  for_each = { for index, zone in local.zones : zone => index }

  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.cidr, 4, each.value)

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id

  tags = { Name = var.name }
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private.id
}

# DynamoDB for the tables, S3 for the layers of images in ECR.
resource "aws_vpc_endpoint" "gateway" {
  for_each = toset(["dynamodb", "s3"])

  vpc_id            = aws_vpc.this.id
  service_name      = "com.amazonaws.${data.aws_region.this.name}.${each.key}"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.private.id]

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_security_group" "endpoints" {
  name        = "${var.name}-endpoints"
  description = "The endpoints of ${var.name}"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  for_each = { https = 443, smtps = 465, submission = 587 }

  security_group_id = aws_security_group.endpoints.id
  description       = "${each.key} from within"
  cidr_ipv4         = var.cidr
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
}

# The public name does not resolve to this endpoint, so the worker gets the endpoint's own name.
#
# Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/privatelink-streams.html
resource "aws_vpc_endpoint" "streams" {
  vpc_id             = aws_vpc.this.id
  service_name       = "com.amazonaws.${data.aws_region.this.name}.dynamodb-streams"
  vpc_endpoint_type  = "Interface"
  security_group_ids = [aws_security_group.endpoints.id]
  subnet_ids = [
    for zone, subnet in aws_subnet.private : subnet.id
    if contains(data.aws_vpc_endpoint_service.streams.availability_zones, zone)
  ]

  tags = { Name = "${var.name}-dynamodb-streams" }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = data.aws_vpc_endpoint_service.each

  vpc_id              = aws_vpc.this.id
  service_name        = each.value.service_name
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  security_group_ids  = [aws_security_group.endpoints.id]
  subnet_ids = [
    for zone, subnet in aws_subnet.private : subnet.id if contains(each.value.availability_zones, zone)
  ]

  tags = { Name = "${var.name}-${each.key}" }
}
