"""From a problem of reasoning_gym to solved problems of another kind that need the same technique."""

from __future__ import annotations

from functools import lru_cache

from realign.evaluation.specs import Corpus, clip
from realign.evaluation.tasks.pools import Row, pool
from realign.texts import worked
from realign.texts.copies import apart
from realign.texts.splits import draw

SEED = 20260
CHARACTERS, ANSWER = 240, 60
"""A question and an answer are cut to so many characters."""
ASKED, SOLVED, FURTHER = 6, 8, 5
"""Problems of each kind with a twin that are queries and documents; documents of each other kind."""
# pairs of reasoning_gym tasks that need one technique and look different
TWINS = (
    ("gcd", "fraction_simplification"),
    ("maze", "shortest_path"),
    ("countdown", "puzzle24"),
    ("mini_sudoku", "futoshiki"),
    ("rotate_matrix", "manipulate_matrix"),
    ("knights_knaves", "self_reference"),
    ("count_bits", "base_conversion"),
    ("simple_integration", "intermediate_integration"),
    ("word_sorting", "number_sorting"),
    ("spell_backward", "word_sequence_reversal"),
    ("syllogism", "propositional_logic"),
    ("coin_flip", "dice"),
    ("simple_equations", "polynomial_equations"),
    ("string_manipulation", "string_insertion"),
    ("kakurasu", "survo"),
    ("simple_geometry", "advanced_geometry"),
    ("aiw", "family_relationships"),
    ("lcm", "prime_factorization"),
)
LEARNED = {"gcd", "lcm", "count_bits", "coin_flip"}
"""Kinds of one sentence each, which training texts have with other numbers."""
PAIRS = (
    *(pair for pair in TWINS if not LEARNED & set(pair)),
    ("calendar_arithmetic", "time_intervals"),
    ("largest_island", "rectangle_count"),
    ("color_cube_rotation", "rubiks_cube"),
    ("rush_hour", "sokoban"),
)
OTHERS = (
    "binary_matrix", "caesar_cipher", "complex_arithmetic", "count_primes", "course_schedule", "decimal_arithmetic",
    "dice", "graph_color", "group_anagrams", "gsm_symbolic", "jugs", "leg_counting", "letter_counting",
    "letter_jumble", "n_queens", "needle_haystack", "number_filtering", "palindrome_generation", "power_function",
    "products", "sentence_reordering", "tower_of_hanoi", "zebra_puzzles",
)  # fmt: skip


@lru_cache(maxsize=256)
def problems(task: str, n: int, characters: int = CHARACTERS) -> tuple[tuple[str, str], ...]:
    """At most ``n`` different (question, answer) pairs of a reasoning_gym task, none of them a training text.

    A task that training uses gives problems of its evaluation side; of the others training has none.
    Long questions keep their start and their end, where the instance is.
    """
    if task in worked.WORKED:
        chosen = draw(worked.problems("eval", (task,)), n, lambda p: p.text, "bright")
        return tuple((shorten(p.text, characters), p.answer) for p in chosen)
    import reasoning_gym

    answers: dict[str, str] = {}  # by question
    for entry in reasoning_gym.create_dataset(task, size=4 * n, seed=SEED):
        answers.setdefault(shorten(entry["question"], characters), str(entry["answer"]))
        if len(answers) == n:
            break
    return tuple(answers.items())


def shorten(question: str, characters: int = CHARACTERS) -> str:
    """Cut the middle out of a long question; short ones stand on one line, long ones keep their lines."""
    question = question.strip()
    if len(question) <= characters:
        return " ".join(question.split())
    start, end = question[: characters // 2], question[-characters // 2 :]
    return f"{start[: start.rfind(' ')]} ... {end[end.find(' ') + 1 :]}"


def unseen(task: str, n: int) -> tuple[tuple[str, str], ...]:
    """At most ``n`` problems as :func:`problems` gives them, none of them a near copy of a training text."""
    if task not in worked.WORKED:
        return problems(task, n)
    training = [problem.text for problem in worked.problems("train", (task,))]
    return tuple(apart(problems(task, worked.POOL_PER_TASK), lambda pair: pair[0], training)[:n])


def _solved(pairs: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Problems with their answers; reasoning_gym checks some answers and states none."""
    return tuple(
        question if answer == "None" else f"{question}\nAnswer: {clip(answer, ANSWER)}"
        for question, answer in pairs
    )


def solved_twins(n: int) -> Corpus:
    """From a problem to solved problems of its twin kind; those of its own kind are excluded."""
    rows = []
    for one, two in PAIRS:
        drawn = {task: unseen(task, ASKED + SOLVED) for task in (one, two)}
        solved = {task: _solved(pairs[ASKED:] or pairs) for task, pairs in drawn.items()}
        for asked, twin in ((one, two), (two, one)):
            rows += [Row(question, solved[twin], solved[asked]) for question, _ in drawn[asked][:ASKED]]
    return pool(
        rows, [text for task in OTHERS for text in _solved(unseen(task, FURTHER))], n=n, documents=3 * n
    )
