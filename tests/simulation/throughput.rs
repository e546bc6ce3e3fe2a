//! What the bound on the number of mails past their final dot costs. Virtual time: the servers differ
//! only in how long they take for the final dot.

use std::time::Duration;

use aftercommit::internal::claim::OnAmbiguous;
use tokio::time::{Instant, sleep};

use crate::mail_server::{Act, Fault, Script, Step};
use crate::relay::{Shop, Staff};

/// The default of `--smtp-connections`.
const CONNECTIONS: f64 = 8.0;

/// Orders that wait when the clock starts.
const ORDERS: u16 = 500;

/// How long the server takes for each of MAIL, RCPT and DATA.
const COMMAND: Duration = Duration::from_millis(10);

/// The mails a second through a server that takes so long for the final dot, as a part of what its
/// connections can carry.
async fn of_the_limit(dot: Duration) -> f64 {
    let steps = [Step::Mail, Step::Rcpt, Step::Data];
    let slow = |step, time| Fault::always(step, Act::Late(time));
    let mut script = Script {
        auth: "PLAIN",
        ..Script::default()
    };
    for step in steps {
        script = script.fault(slow(step, COMMAND));
    }
    script = script.fault(slow(Step::Dot, dot));
    let staff = Staff {
        workers: 1,
        policy: OnAmbiguous::Resend,
        seed: 7,
    };
    let mut shop = Shop::open(staff, script);
    // It is busy when the measurement begins.
    shop.orders(400, Duration::from_secs(4)).await;
    let before = shop.server.by_recipient().len();
    for _ in 0..ORDERS {
        shop.order();
    }
    let began = Instant::now();
    while shop.server.by_recipient().len() < before + usize::from(ORDERS) {
        sleep(Duration::from_millis(10)).await;
    }
    let each = (COMMAND * 3 + dot).as_secs_f64() / CONNECTIONS;
    each * f64::from(ORDERS) / began.elapsed().as_secs_f64()
}

/// The numbers are in docs/guarantees.md.
#[tokio::test(start_paused = true)]
async fn the_bound_on_mails_past_their_dot_costs_speed_only_where_the_dot_takes_most_of_the_time() {
    for (dot, least) in [(10, 0.95), (30, 0.9), (60, 0.75), (200, 0.6)] {
        let part = of_the_limit(Duration::from_millis(dot)).await;
        eprintln!("a dot of {dot} ms: {part:.2} of what the connections can carry");
        assert!(
            part >= least,
            "{part:.2} of the limit with a dot of {dot} ms"
        );
    }
}
