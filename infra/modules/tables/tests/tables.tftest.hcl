mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000000" }
  }
}

run "the_workers_tables_are_kept_safe_and_rows_expire_where_they_should" {
  assert {
    condition = alltrue([for table in aws_dynamodb_table.own :
      table.deletion_protection_enabled && table.billing_mode == "PAY_PER_REQUEST"
      && table.point_in_time_recovery[0].enabled
      && table.server_side_encryption[0].kms_key_arn == aws_kms_key.tables.arn
    ])
    error_message = "A table lacks deletion protection, recovery, the key, or is not on demand."
  }

  assert {
    condition     = sort([for key, table in aws_dynamodb_table.own : key if length(table.ttl) == 1]) == tolist(["dead_letters", "ledger"])
    error_message = "Rows of the ledger and of the dead letters expire, and no others."
  }

  assert {
    condition     = output.orders == null && length(aws_dynamodb_table.orders) == 0
    error_message = "The sample table is made only where it is asked for."
  }
}

run "the_sample_table_has_a_stream_of_both_images" {
  variables {
    orders_table = "orders"
  }

  assert {
    condition     = aws_dynamodb_table.orders[0].stream_view_type == "NEW_AND_OLD_IMAGES" && output.orders.name == "orders"
    error_message = "The worker needs the new image."
  }
}
