from clip_seg_ros.evaluation.embedded import Question, summarise
from clip_seg_ros.training.card import write_card
from clip_seg_ros.training.pocket import PocketSettings, StageSettings


def test_the_card_says_what_was_measured(tmp_path):
    stage = StageSettings(100, 8, 1e-3)
    settings = PocketSettings(scenes=12, crops=stage, joint=stage, decoder=stage)
    questions = [
        Question(10_000, "seen pair", ("red", "cup"), 0.8, 0.1),
        Question(10_001, "unseen pair", ("red", "bowl"), 0.25, 0.1),
        Question(10_001, "absent random", ("blue", "box"), float("nan"), 0.2),
        Question(10_001, "absent hard", ("blue", "box"), float("nan"), 0.0),
    ]
    card = tmp_path / "card.md"
    seconds = {"crops": 60.0, "scenes": 600.0, "decoder": 120.0}
    write_card(card, settings, summarise(questions), seconds, (3_000_000, 250_000), 7_000_000, "2 processor threads")
    text = card.read_text()
    assert "| colour + kind, the eight pairs it never saw | 1 | 0.250 | 0.0% |" in text
    assert "| colour + kind, all | 2 | 0.525 | 50.0% |" in text
    assert "| a random colour + kind | 1 | 100.0% |" in text
    assert "| scenes | 100 | 8 | 10 min |" in text
    assert "The times are for 2 processor threads" in text
    assert "7.0 MB" in text and "seeds 10000 to 10001" in text
    assert "kind alone" not in text, "what was not asked has no row"
