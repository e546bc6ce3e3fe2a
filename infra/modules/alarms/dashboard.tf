data "aws_region" "this" {}

locals {
  # Title, statistic, metrics; two in a row.
  graphs = concat(
    [
      ["Behind (s)", "Maximum", ["aftercommit_lag_seconds"]],
      ["Until a record leaves the stream unread (s)", "Minimum", ["aftercommit_until_trim_seconds"]],
      ["Records", "Sum", ["aftercommit_records_handled_total", "aftercommit_records_filtered_total", "aftercommit_attempts_failed_total"]],
      ["Mails", "Sum", ["aftercommit_effects_accepted_total", "aftercommit_effects_deferred_total", "aftercommit_effects_failed_total", "aftercommit_effects_suppressed_total"]],
      ["Waits for somebody", "Maximum", ["aftercommit_parked_keys_failed", "aftercommit_parked_keys_rescued", "aftercommit_orders_ambiguous", "aftercommit_orders_resending", "aftercommit_orders_released"]],
      ["Mail server down (s)", "Maximum", ["aftercommit_dependency_down_seconds"]],
      ["One attempt (s, 99 of 100)", "p99", ["aftercommit_handle_seconds"]],
    ],
    var.lambda != null ? [] : [
      ["From commit to finished (s, 99 of 100)", "p99", ["aftercommit_commit_to_finished_seconds"]],
      ["Lost unread, and not resolved", "Maximum", ["aftercommit_gaps_open"]],
      ["Reads that failed", "Sum", ["aftercommit_reads_failed_total", "aftercommit_reads_throttled_total"]],
      ["Heartbeats", "Sum", ["aftercommit_heartbeats_total"]],
      ["Shards changing hands", "Sum", ["aftercommit_lease_takes_total", "aftercommit_lease_hand_overs_total", "aftercommit_lease_lapses_total"]],
    ],
  )
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name

  dashboard_body = jsonencode({
    widgets = [for index, graph in local.graphs : {
      type   = "metric"
      x      = 12 * (index % 2)
      y      = 6 * floor(index / 2)
      width  = 12
      height = 6
      properties = {
        title   = graph[0]
        stat    = graph[1]
        metrics = [for metric in graph[2] : ["aftercommit", metric, "group", var.group, "effect", var.effect, "table", var.table]]
        region  = data.aws_region.this.name
        period  = 60
        view    = "timeSeries"
      }
    }]
  })
}
