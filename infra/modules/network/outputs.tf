output "vpc_id" {
  description = "The network"
  value       = aws_vpc.this.id
}

output "subnet_ids" {
  description = "Its private subnets, one in each of three zones"
  value       = [for subnet in aws_subnet.private : subnet.id]

  # A task that starts in them earlier reaches nothing.
  depends_on = [
    aws_route_table_association.private,
    aws_vpc_endpoint.gateway,
    aws_vpc_endpoint.interface,
    aws_vpc_endpoint.streams,
    aws_vpc_security_group_ingress_rule.endpoints,
  ]
}

output "streams_endpoint_url" {
  description = "Where DynamoDB Streams is from within"
  value       = "https://${aws_vpc_endpoint.streams.dns_entry[0].dns_name}"
}
