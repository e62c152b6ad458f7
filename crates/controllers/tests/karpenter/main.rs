//! Karpenter's controllers in a small cluster on a virtual clock.

mod world;

use world::World;

fn check_settled(world: &World, pods: usize) {
    assert_eq!(world.running_pods(), pods, "{:#?}", world.messages());
    let (nodes, claims, machines) =
        (world.nodes().len(), world.claims().len(), world.machines().len());
    assert_eq!((nodes, machines), (claims, claims), "nodes and machines for {claims} claims");
}

#[test]
fn the_inflate_lab() {
    let mut world = World::new();
    world.pool(|_| {});
    world.run(5);
    world.scale(5);
    world.run(80);
    check_settled(&world, 5);
    assert_eq!(world.claims().len(), 1);
    world.scale(30);
    world.run(200);
    check_settled(&world, 30);
    world.scale(5);
    world.run(900);
    check_settled(&world, 5);
    assert_eq!(world.claims().len(), 1);
    world.scale(0);
    world.run(400);
    println!("{:#?}", world.messages());
    println!("{:#?}", world.events());
    println!("{:#?}", world.journal.refused);
    println!("{:#?}", world.journal.reasons);
    check_settled(&world, 0);
    assert_eq!(world.claims().len(), 0);
}
