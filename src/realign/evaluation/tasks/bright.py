"""The suite open-bright: reasoning-intensive retrieval, where what answers a query shares few words with it.

It stands for BRIGHT: problems to theorems and to problems that are solved in the same way, questions to facts
that they do not name. As there, documents that are arguable for a query are excluded from its ranking.
"""

from __future__ import annotations

from functools import partial

from realign.evaluation.specs import TaskSpec
from realign.evaluation.tasks import commonsense, lint, mathematics, twins
from realign.evaluation.tasks.citations import BIGBENCH_PAPER, paper, software
from realign.texts.archives import BIGBENCH, CHAMP

CHAMP_PAPER = paper(
    "mao2024champ",
    "Yujun Mao and Yoon Kim and Yilun Zhou",
    "{CHAMP}: A Competition-level Dataset for Fine-Grained Analyses of {LLM}s' Mathematical Reasoning Capabilities",
    2024,
    "2401.06961",
)
_task = partial(
    TaskSpec,
    type="Retrieval",
    study_n=200,
    n=30,
    smoke_n=0,
    subtypes=("Reasoning as Retrieval",),
)
_mathematics = partial(_task, domains=("Academic", "Written"))
_written = partial(_task, archives=(BIGBENCH,), annotations="human-annotated")

SPECS = (
    _mathematics(
        name="ChampConceptRetrieval",
        build=mathematics.champ_concepts,
        description="Find the concepts (theorems, identities) that solve a competition problem.",
        source="CHAMP: 223 problems with links to 89 concepts; physics formulas of BIG-bench as further documents",
        gold="the authors of CHAMP linked each problem to the concepts of its solution; what a linked concept is a "
        "case of, and its own cases, are excluded",
        weakness="a small pool; a problem can be solved in a way that its authors did not write down",
        license="multiple",
        archives=(CHAMP, BIGBENCH),
        annotations="expert-annotated",
        date=("2022-01-01", "2024-01-10"),
        **CHAMP_PAPER,
    ),
    _mathematics(
        name="ChampProblemRetrieval",
        build=mathematics.champ_problems,
        description="Find competition problems whose solutions share a concept with that of the given one.",
        source="CHAMP: 270 problems",
        gold="both problems are linked to one concept by the authors of CHAMP; the query's own text is excluded",
        weakness="some concepts belong to dozens of problems, whose likeness is then broad",
        license="mit",
        archives=(CHAMP,),
        annotations="expert-annotated",
        date=("2022-01-01", "2024-01-10"),
        **CHAMP_PAPER,
    ),
    _mathematics(
        name="PhysicsFormulaRetrieval",
        build=mathematics.physics,
        description="Find the formulas that a physics problem needs.",
        source="BIG-bench physics: 153 problems, 42 formulas; concepts of CHAMP as further documents",
        gold="the task's authors name the formulas of each problem",
        weakness="formulas are bare symbols; some problems differ in numbers only, so queries are not independent",
        license="multiple",
        archives=(BIGBENCH, CHAMP),
        annotations="expert-annotated",
        creation="created",
        date=("2021-01-01", "2022-06-30"),
        **BIGBENCH_PAPER,
    ),
    _mathematics(
        name="SameProgramRetrieval",
        build=mathematics.same_program,
        description="Find word problems that are solved by the same sequence of operations as the given one.",
        source="MathQA in BIG-bench elementary_math_qa: 7,688 problems with programs",
        gold="the annotated programs are equal once numbers are masked; one story with other numbers counts once",
        weakness="programs were written by crowd workers, and equal ones can stand for unlike thoughts",
        license="apache-2.0",
        archives=(BIGBENCH,),
        annotations="human-annotated",
        date=("2017-01-01", "2019-05-31"),
        **paper(
            "amini2019mathqa",
            "Aida Amini and Saadia Gabriel and Shanchuan Lin and Rik Koncel-Kedziorski and Yejin Choi and "
            "Hannaneh Hajishirzi",
            "{MathQA}: Towards Interpretable Math Word Problem Solving with Operation-Based Formalisms",
            2019,
            "1905.13319",
        ),
    ),
    _written(
        name="ImplicitFactRetrieval",
        build=commonsense.implicit_facts,
        description="Find the facts that a yes-no question rests on and does not name.",
        source="StrategyQA in BIG-bench: 2,290 questions with the facts that explain the answer, 591 of them asked",
        gold="sentences of the question's explanation that share no content word with it; its other sentences are "
        "excluded",
        weakness="sentences are cut by a pattern, some point back to the one before; other questions' facts can help",
        license="mit",
        domains=("Encyclopaedic", "Written"),
        date=("2020-01-01", "2021-01-31"),
        **paper(
            "geva2021strategyqa",
            "Mor Geva and Daniel Khashabi and Elad Segal and Tushar Khot and Dan Roth and Jonathan Berant",
            "Did {A}ristotle Use a Laptop? A Question Answering Benchmark with Implicit Reasoning Strategies",
            2021,
            "2101.02235",
        ),
    ),
    _written(
        name="TwoFactRetrieval",
        build=commonsense.two_facts,
        description="Find the two facts that together answer a question.",
        source="QASC in BIG-bench natural_instructions (subtasks 038 and 040): 3,842 questions, 6,756 facts",
        gold="crowd workers chose the second fact, combined the two and made the question of the combination",
        weakness="questions keep words of both facts; many other facts of the pool are about the same thing",
        license="cc-by-4.0",
        domains=("Academic", "Written"),
        date=("2019-01-01", "2019-12-31"),
        **paper(
            "khot2020qasc",
            "Tushar Khot and Peter Clark and Michal Guerquin and Peter Jansen and Ashish Sabharwal",
            "{QASC}: A Dataset for Question Answering via Sentence Composition",
            2019,
            "1910.11473",
        ),
    ),
    _written(
        name="ProverbRetrieval",
        build=commonsense.proverbs,
        description="Find the proverb that a short story illustrates.",
        source="BIG-bench abstract_narrative_understanding: 1,000 stories for 100 proverbs; further sayings of "
        "english_proverbs and morals of understanding_fables",
        gold="each story was written for its proverb",
        weakness="another saying can fit as well; ten stories share a proverb",
        license="apache-2.0",
        domains=("Fiction", "Written"),
        creation="created",
        date=("2021-01-01", "2022-06-30"),
        **BIGBENCH_PAPER,
    ),
    _written(
        name="GoalOfStepRetrieval",
        build=commonsense.goals,
        description="Find the goal that one step of a how-to guide serves.",
        source="wikiHow in BIG-bench goal_step_wikihow/goal_inference: 1,703 steps, 5,886 goals",
        gold="the step stands in the guide with this title",
        weakness="some steps would serve many goals",
        license="cc-by-nc-sa-3.0",
        domains=("Web", "Written"),
        annotations="derived",
        date=("2005-01-01", "2020-09-30"),
        **paper(
            "zhang2020goalstep",
            "Li Zhang and Qing Lyu and Chris Callison-Burch",
            "Reasoning about Goals, Steps, and Temporal Ordering with {WikiHow}",
            2020,
            "2009.07690",
        ),
    ),
    _task(
        name="BrokenRuleRetrieval",
        build=lint.broken_rules,
        smoke_n=8,
        description="Find what the rule checks for that a piece of Python code breaks.",
        source="examples in the documentation of ruff's rules; the first paragraph of every rule's documentation",
        gold="the example stands in the rule's documentation and ruff reports it by this rule; further rules that "
        "it reports are excluded",
        weakness="examples are short and name what the rule is about; each tests one rule of one linter",
        license="mit",
        languages=("eng-Latn", "python-Code"),
        domains=("Programming", "Written"),
        packages=("ruff",),
        date=("2022-08-01", "2026-11-01"),
        **software(
            "ruff",
            "Charlie Marsh and others",
            "Ruff: an extremely fast {Python} linter",
            2022,
            "https://docs.astral.sh/ruff/rules/",
        ),
    ),
    _task(
        name="SolvedTwinRetrieval",
        build=twins.solved_twins,
        smoke_n=8,
        description="Find solved problems of another kind that need the same technique as the given one.",
        source="reasoning_gym: 18 pairs of kinds of problems, 30 further kinds",
        gold="pairs of kinds chosen by hand for their common technique; solved problems of the query's own kind are "
        "excluded",
        weakness="one author's judgement; problems of one kind share a template, so queries are not independent",
        license="apache-2.0",
        domains=("Academic", "Written"),
        packages=("reasoning_gym",),
        creation="created",
        date=("2025-01-01", "2025-05-31"),
        **paper(
            "stojanovski2025reasoninggym",
            "Zafir Stojanovski and Oliver Stanley and Joe Sharratt and Richard Jones and Abdulhakeem Adefioye and "
            'Jean Kaddour and Andreas K{\\"o}pf',
            "{REASONING GYM}: Reasoning Environments for Reinforcement Learning with Verifiable Rewards",
            2025,
            "2505.24760",
        ),
    ),
)
