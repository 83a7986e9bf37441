from clip_seg_ros.nodes.faults import FaultLog


def test_once_until_it_clears():
    said = []
    faults = FaultLog(said.append)
    for _ in range(3):
        faults.report("image", "empty", "it is empty")
        faults.report("image", "encoding", "unknown")
        faults.report("depth", "empty", "it is empty")
    assert said == ["image: it is empty", "image: unknown", "depth: it is empty"]

    faults.clear("image")
    faults.report("image", "empty", "again")
    faults.report("depth", "empty", "still")
    assert said[3:] == ["image: again"]
