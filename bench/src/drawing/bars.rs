//! Bars that are all of one length, each cut into the shares of its parts.

use crate::drawing::svg::Svg;

const WIDTH: f64 = 760.0;
/// Where bars begin and end.
const LEFT: f64 = 170.0;
const RIGHT: f64 = 530.0;
const TOP: f64 = 80.0;
/// From one bar to the next, and how high one is.
const EVERY: f64 = 38.0;
const HIGH: f64 = 24.0;
/// A share that has room for its figure.
const TOLD_FROM: f64 = 0.07;

/// What is drawn.
#[derive(Debug)]
pub(super) struct Bars {
    pub(super) title: &'static str,
    pub(super) parts: Vec<&'static str>,
    pub(super) bars: Vec<Bar>,
}

/// A bar.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    /// How much each part has.
    pub(super) parts: Vec<f64>,
    /// What stands behind it.
    pub(super) told: String,
}

impl Bars {
    pub(super) fn drawn(&self) -> String {
        let height = TOP + EVERY * self.bars.len() as f64 + 10.0;
        let mut svg = Svg::new(WIDTH, height, self.title);
        let mut x = 16.0;
        for (number, part) in self.parts.iter().enumerate() {
            svg.rect((x, 46.0), 14.0, 14.0, number);
            svg.text(x + 20.0, 58.0, "", part);
            x += 44.0 + 7.0 * part.len() as f64;
        }
        for (number, bar) in self.bars.iter().enumerate() {
            let y = TOP + EVERY * number as f64;
            svg.text(LEFT - 10.0, y + 17.0, "end", &bar.name);
            let (all, mut x) = (bar.parts.iter().sum::<f64>().max(f64::MIN_POSITIVE), LEFT);
            for (colour, part) in bar.parts.iter().enumerate() {
                let (share, width) = (part / all, part / all * (RIGHT - LEFT));
                svg.rect((x, y), width, HIGH, colour);
                if share >= TOLD_FROM {
                    svg.text(x + width / 2.0, y + 17.0, "middle", &format!("{:.0} %", share * 100.0));
                }
                x += width;
            }
            svg.text(RIGHT + 10.0, y + 17.0, "", &bar.told);
        }
        svg.drawn()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_shares_and_tells_those_that_have_room() {
        let bar = Bar { name: "20/s".to_owned(), parts: vec![6.0, 3.8, 0.2], told: "10 ms".to_owned() };
        let drawn = Bars { title: "t", parts: vec!["a", "b", "c"], bars: vec![bar] }.drawn();
        assert!(drawn.contains(">60 %<") && drawn.contains(">38 %<") && !drawn.contains(">2 %<"), "{drawn}");
        assert!(drawn.contains(">20/s<") && drawn.contains(">10 ms<"), "{drawn}");
    }

    #[test]
    fn a_bar_of_nothing_is_drawn_without_parts() {
        let bar = Bar { name: "x".to_owned(), parts: vec![0.0, 0.0], told: String::new() };
        let drawn = Bars { title: "t", parts: vec!["a", "b"], bars: vec![bar] }.drawn();
        assert!(!drawn.contains("NaN"), "{drawn}");
    }
}
