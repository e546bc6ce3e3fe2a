# Keys, index and the attribute of time to live are those of `aftercommit tables create`, which refuses
# tables of another shape, and adds what is missing; the proof in infra/test.sh runs it against these.
locals {
  own = {
    leases       = { partition = "group_table", sort = "row", index = {}, expires = false }
    ledger       = { partition = "effect", sort = null, index = { attention = "attention" }, expires = true }
    dead_letters = { partition = "item", sort = "row", index = {}, expires = true }
    suppression  = { partition = "address", sort = null, index = {}, expires = false }
  }
}

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

resource "aws_kms_key" "tables" {
  description         = "The tables of ${var.name}"
  enable_key_rotation = true
  policy              = data.aws_iam_policy_document.key.json
}

resource "aws_kms_alias" "tables" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.tables.key_id
}

resource "aws_dynamodb_table" "own" {
  for_each = local.own

  name                        = "${var.name}-${replace(each.key, "_", "-")}"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = each.value.partition
  range_key                   = each.value.sort
  deletion_protection_enabled = var.deletion_protection

  dynamic "attribute" {
    for_each = compact([each.value.partition, each.value.sort, one(values(each.value.index))])

    content {
      name = attribute.value
      type = "S"
    }
  }

  # Only rows with its attribute stand in it.
  dynamic "global_secondary_index" {
    for_each = each.value.index

    content {
      name            = global_secondary_index.key
      hash_key        = global_secondary_index.value
      range_key       = each.value.partition
      projection_type = "KEYS_ONLY"
    }
  }

  dynamic "ttl" {
    for_each = each.value.expires ? ["expires"] : []

    content {
      enabled        = true
      attribute_name = ttl.value
    }
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = aws_kms_key.tables.arn
  }
}

# A sample. Yours may have any key, and needs the same stream.
resource "aws_dynamodb_table" "orders" {
  count = var.orders_table == null ? 0 : 1

  name                        = var.orders_table
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "id"
  stream_enabled              = true
  stream_view_type            = "NEW_AND_OLD_IMAGES"
  deletion_protection_enabled = var.deletion_protection

  attribute {
    name = "id"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = aws_kms_key.tables.arn
  }
}
