//! Lines over a scale: one figure against another.

use crate::drawing::svg::Svg;
use crate::report::table::grouped;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// The corners of what is inside the axes.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 470.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 365.0;
/// A tick a little beside a scale's end is drawn all the same.
const TOLERANCE: f64 = 1e-9;

/// What is drawn.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) title: &'static str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
}

/// One line.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

/// A scale.
#[derive(Debug)]
pub(super) struct Axis {
    name: &'static str,
    from: f64,
    to: f64,
    is_logarithmic: bool,
}

impl Axis {
    /// From 0 to at least `most`.
    pub(super) fn from_zero(name: &'static str, most: f64) -> Axis {
        let step = step(most);
        Axis { name, from: 0.0, to: (most / step).ceil().max(1.0) * step, is_logarithmic: false }
    }

    /// From below the least of the values, which are above 0, to above the greatest.
    pub(super) fn logarithmic(name: &'static str, values: impl Iterator<Item = f64>) -> Axis {
        let (least, most) = values
            .fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), value| (least.min(value), most.max(value)));
        Axis { name, from: least / 1.3, to: most * 1.3, is_logarithmic: true }
    }

    /// Where a value lies: 0 at the one end and 1 at the other.
    fn place(&self, value: f64) -> f64 {
        let on_scale = |value: f64| if self.is_logarithmic { value.ln() } else { value };
        let (from, to) = (on_scale(self.from), on_scale(self.to));
        (on_scale(value) - from) / (to - from)
    }

    /// The values that are written beside it.
    fn ticks(&self) -> Vec<f64> {
        let inside =
            |value: &f64| *value >= self.from * (1.0 - TOLERANCE) && *value <= self.to * (1.0 + TOLERANCE);
        if self.is_logarithmic {
            let decades = (-3..7).map(|decade| 10_f64.powi(decade));
            return decades
                .flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * decade))
                .filter(inside)
                .collect();
        }
        let step = step(self.to);
        (0..20).map(|number| f64::from(number) * step).filter(inside).collect()
    }
}

/// 1, 2 or 5 times a power of ten, so that there are about five steps.
fn step(most: f64) -> f64 {
    let rough = most.max(f64::MIN_POSITIVE) / 5.0;
    let decade = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * decade).into_iter().find(|step| *step >= rough).unwrap_or(rough)
}

impl Lines {
    pub(super) fn drawn(&self) -> String {
        let mut svg = Svg::new(WIDTH, HEIGHT, self.title);
        let x = |value| LEFT + self.x.place(value) * (RIGHT - LEFT);
        let y = |value| BOTTOM - self.y.place(value) * (BOTTOM - TOP);
        for tick in self.x.ticks() {
            svg.line((x(tick), TOP), (x(tick), BOTTOM));
            svg.text(x(tick), BOTTOM + 18.0, "middle", &figure(tick));
        }
        for tick in self.y.ticks() {
            svg.line((LEFT, y(tick)), (RIGHT, y(tick)));
            svg.text(LEFT - 8.0, y(tick) + 4.0, "end", &figure(tick));
        }
        svg.text(f64::midpoint(LEFT, RIGHT), BOTTOM + 40.0, "middle", self.x.name);
        svg.text(LEFT - 8.0, TOP - 10.0, "end", self.y.name);
        for (number, series) in self.series.iter().enumerate() {
            let points: Vec<(f64, f64)> =
                series.points.iter().map(|point| (x(point.0), y(point.1))).collect();
            svg.path(&points, number);
            let beside = TOP + 8.0 + 24.0 * number as f64;
            svg.rect((RIGHT + 16.0, beside - 5.0), 14.0, 4.0, number);
            svg.text(RIGHT + 36.0, beside + 2.0, "", series.name);
        }
        svg.drawn()
    }
}

/// With decimals only where it is small.
fn figure(value: f64) -> String {
    if value == 0.0 || value >= 1.0 { grouped(value) } else { format!("{value}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_from_zero_has_round_steps_and_room_for_the_most() {
        let axis = Axis::from_zero("MB", 237.0);
        assert_eq!(axis.ticks(), [0.0, 50.0, 100.0, 150.0, 200.0, 250.0]);
        assert!((axis.place(125.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn on_a_logarithmic_scale_equal_ratios_are_equal_distances() {
        let axis = Axis::logarithmic("ms", [2.0, 200.0].into_iter());
        let (a, b, c) = (axis.place(2.0), axis.place(20.0), axis.place(200.0));
        assert!((b - a - (c - b)).abs() < 1e-9 && a > 0.0 && c < 1.0);
        assert_eq!(axis.ticks(), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
    }

    #[test]
    fn what_is_more_is_drawn_higher() {
        let series = vec![Series { name: "s", points: vec![(1.0, 10.0), (2.0, 20.0)] }];
        let lines = Lines { title: "t", x: Axis::from_zero("x", 2.0), y: Axis::from_zero("y", 20.0), series };
        let drawn = lines.drawn();
        let heights: Vec<f64> = drawn
            .split("cy=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(heights.len(), 2);
        assert!(heights[0] > heights[1], "{heights:?}");
    }
}
