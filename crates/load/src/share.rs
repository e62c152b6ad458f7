//! How a node's processors are shared: everybody gets what they want while there is enough, and
//! a share by weight where there is not, as the kernel's scheduler gives it.

/// Who wants cpu.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Want {
    /// Cores.
    pub(crate) cores: f64,
    /// `cpu.shares`.
    pub(crate) weight: f64,
}

/// What each gets of `capacity` cores: max-min fair by weight. Never more than wanted.
pub(crate) fn share(wants: &[Want], capacity: f64) -> Vec<f64> {
    let total: f64 = wants.iter().map(|want| want.cores).sum();
    if total <= capacity {
        return wants.iter().map(|want| want.cores).collect();
    }
    // Those that want least for their weight are served whole, one after the other, while the
    // level per weight that is left to the others lies above theirs.
    let mut order: Vec<usize> = (0..wants.len()).collect();
    let level = |index: &usize| wants[*index].cores / wants[*index].weight.max(1.0);
    order.sort_by(|a, b| level(a).total_cmp(&level(b)).then(a.cmp(b)));
    let mut given = vec![0.0; wants.len()];
    let mut left = capacity.max(0.0);
    let mut weight: f64 = wants.iter().map(|want| want.weight.max(1.0)).sum();
    for index in order {
        let own = wants[index].weight.max(1.0);
        let part = wants[index].cores.min(left * own / weight).max(0.0);
        given[index] = part;
        left -= part;
        weight = (weight - own).max(1.0);
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wants(list: &[(f64, f64)]) -> Vec<Want> {
        list.iter().map(|&(cores, weight)| Want { cores, weight }).collect()
    }

    #[test]
    fn a_full_node_is_shared_by_weight() {
        for (list, capacity, expected) in [
            (vec![(1.0, 2.0), (0.5, 1_024.0)], 2.0, vec![1.0, 0.5]),
            (vec![(2.0, 100.0), (2.0, 300.0)], 2.0, vec![0.5, 1.5]),
            // Who wants less than its share leaves the rest to the others.
            (vec![(0.1, 800.0), (4.0, 100.0), (4.0, 100.0)], 2.1, vec![0.1, 1.0, 1.0]),
            (vec![(1.0, 1.0)], 0.0, vec![0.0]),
        ] {
            let given = share(&wants(&list), capacity);
            for (given, expected) in given.iter().zip(&expected) {
                assert!((given - expected).abs() < 1e-9, "{list:?}: {given} {expected}");
            }
        }
    }

    proptest! {
        #[test]
        fn nobody_gets_too_much(
            list in proptest::collection::vec((0.0_f64..8.0, 2.0_f64..4_096.0), 0..20),
            capacity in 0.0_f64..32.0,
        ) {
            let wants = wants(&list);
            let given = share(&wants, capacity);
            let (sum, total): (f64, f64) = (given.iter().sum(), wants.iter().map(|w| w.cores).sum());
            prop_assert!(sum <= capacity.min(total) + 1e-9);
            prop_assert!(sum >= capacity.min(total) - 1e-6, "nothing is left over: {sum}");
            for (want, given) in wants.iter().zip(&given) {
                prop_assert!(*given <= want.cores + 1e-12 && *given >= 0.0);
            }
        }
    }
}
