//! The page on narrow and wide screens, in light and dark, for ears and for a thousand shards.

use serde_json::{Value, json};

use super::documents::{many, troubled};
use super::{assert_clean, rows, shown};

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn light_and_dark_differ_and_both_can_be_read_narrow_and_wide() {
    let (site, browser) = shown(troubled("!"));
    let mut grounds = Vec::new();
    for (name, dark) in [("light", false), ("dark", true)] {
        for (width, size) in [(360, "narrow"), (1024, "middle"), (1600, "wide")] {
            browser.looks(width, 900, dark);
            let wide = browser.value("document.documentElement.scrollWidth");
            assert!(
                wide.as_u64().unwrap() <= u64::from(width),
                "{name} {size}: {wide}"
            );
            browser.picture(&format!("troubled-{size}-{name}"));
        }
        grounds.push(browser.value("getComputedStyle(document.body).backgroundColor"));
        for selector in ["h1", "#age", "#totals dt", ".note", "thead th", "td.error"] {
            let contrast = browser.value(&format!("({CONTRAST})({selector:?})"));
            // WCAG 2.2, 1.4.3.
            assert!(
                contrast.as_f64().unwrap() >= 4.5,
                "{name} {selector}: {contrast}"
            );
        }
    }
    assert_ne!(grounds[0], grounds[1]);
    assert_clean(&site, &browser);
}

/// WCAG's contrast of an element's text with the page's ground.
const CONTRAST: &str = "(selector) => {
  const light = (colour) => {
    const part = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.match(/\\d+/g).map(Number).map(part);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const text = light(getComputedStyle(document.querySelector(selector)).color);
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
}";

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn a_screen_reader_finds_tables_and_a_live_verdict_on_a_narrow_screen_too() {
    let (_site, browser) = shown(troubled("!"));
    browser.looks(360, 900, false);
    let tree = browser.devtools("Accessibility.getFullAXTree", &json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    let count = |role: &str| {
        nodes
            .iter()
            .filter(|node| node["role"]["value"] == role)
            .count()
    };
    let names: Vec<&str> = nodes
        .iter()
        .filter(|node| node["role"]["value"] == "table")
        .filter_map(|node| node["name"]["value"].as_str())
        .collect();
    assert_eq!(names, ["Shards", "Workers", "Gaps", "Unreadable"]);
    assert_eq!(count("rowheader"), 3 + 2 + 2 + 1);
    assert_eq!(count("columnheader"), 8 + 6 + 6 + 2);
    let live = browser.value("document.querySelector('h1').closest('[aria-live]').ariaLive");
    assert_eq!(live, "polite");
    let ticking = browser.value("document.getElementById('age').closest('[aria-live]')");
    assert_eq!(
        ticking,
        Value::Null,
        "what changes each second is not read aloud"
    );
}

#[test]
#[ignore = "needs Chromium: run tests/page/run.sh"]
fn of_a_thousand_shards_the_ended_ones_are_folded_and_the_keyboard_unfolds_them() {
    let (site, browser) = shown(many(900, 100));
    assert_eq!(rows(&browser, "Shards").len(), 100);
    assert!(browser.text("fieldset").contains("All 1,000"));
    browser.picture("thousand-folded");
    browser.value("document.querySelector('input[value=living]').focus()");
    browser.press("ArrowLeft", 37);
    browser.wait("document.querySelectorAll('[aria-label=Shards] tbody tr').length === 1000");
    // The choice outlives the next look, and a row stays the same node.
    browser.value("document.querySelectorAll('[aria-label=Shards] tbody tr')[999].mark = true");
    let mut later = many(900, 100);
    later["streams"][0]["shards"][999]["epoch"] = json!(4);
    site.set(Some(later));
    let last = "document.querySelectorAll('[aria-label=Shards] tbody tr')[999]";
    browser.wait(&format!("{last}.children[3].innerText === '4'"));
    assert_eq!(browser.value(&format!("{last}.mark")), true);
    assert_clean(&site, &browser);
}
