//! A projection: a second table that shows each order as it is now.
//!
//! Records may come twice, and a worker that was frozen may write late. Each row carries the version
//! of the record that it shows, and a write under [`Context::NEWER`] never puts an older state over
//! a newer one.

// The program, as the README shows it.
use aftercommit::cli::{App, Start};
use aftercommit::{Context, Event, Failure, Record, RecordHandler};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use serde::Deserialize;

#[derive(Deserialize)]
struct Order {
    total: u64,
}

/// Keeps a row with the total of each order.
struct Projection(Client);

impl RecordHandler for Projection {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let version = AttributeValue::S(context.version(record));
        let order = AttributeValue::S(record.key().as_str().to_owned());
        let put = self.0.put_item().table_name("order-totals");
        let put = put.item("order", order).item("version", version.clone());
        // A removed order keeps a row, or a late write would bring the order back.
        let put = if record.event == Event::Remove {
            put.item("removed", AttributeValue::Bool(true))
        } else {
            let order: Order = record.new_image()?; // A bad order becomes a dead letter that names the field.
            put.item("total", AttributeValue::N(order.total.to_string()))
        };
        let put = put.condition_expression(Context::NEWER);
        let put = put.expression_attribute_names("#version", "version");
        let put = put.expression_attribute_values(":version", version);
        match put.send().await {
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(PutItemError::is_conditional_check_failed_exception) =>
            {
                Ok(()) // The row is newer already.
            }
            written => written.map(drop).map_err(Failure::from),
        }
    }
}

fn main() -> std::process::ExitCode {
    App::new("order-totals")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps the total of each order in the table order-totals")
        .start(|start: Start<()>| async move { Ok(Projection(Client::new(&start.aws))) })
}
// End of the program.
