"""The suite open-code: code retrieval from prose, from code and from SQL, with data that other people made.

It stands for MTEB(Code). The names of functions are hidden in code, as they repeat the words of the prose.
"""

from __future__ import annotations

from functools import partial

from realign.evaluation.specs import TaskSpec
from realign.evaluation.tasks import libraries, programs
from realign.evaluation.tasks.citations import paper, software
from realign.texts.archives import BIGBENCH, HUMAN_EVAL

_task = partial(
    TaskSpec,
    type="Retrieval",
    study_n=200,
    n=30,
    smoke_n=0,
    languages=("eng-Latn", "python-Code"),
    domains=("Programming", "Written"),
    subtypes=("Code retrieval",),
)
_human_eval = partial(
    _task,
    source="HumanEval: 164 problems with their solutions",
    gold="the authors of HumanEval solved each problem",
    license="mit",
    archives=(HUMAN_EVAL,),
    annotations="expert-annotated",
    creation="created",
    date=("2021-01-01", "2021-07-07"),
    **paper(
        "chen2021humaneval",
        "Mark Chen and others",
        "Evaluating Large Language Models Trained on Code",
        2021,
        "2107.03374",
    ),
)
_spider = partial(
    _task,
    source="Spider's development set in BIG-bench: 1,034 questions, 543 SQL queries, 20 databases",
    license="cc-by-sa-4.0",
    languages=("eng-Latn", "sql-Code"),
    archives=(BIGBENCH,),
    annotations="expert-annotated",
    creation="created",
    date=("2017-09-01", "2018-09-24"),
    **paper(
        "yu2018spider",
        "Tao Yu and Rui Zhang and Kai Yang and Michihiro Yasunaga and Dongxu Wang and Zifan Li and James Ma and "
        "Irene Li and Qingning Yao and Shanelle Roman and Zilin Zhang and Dragomir Radev",
        "Spider: A Large-Scale Human-Labeled Dataset for Complex and Cross-Domain Semantic Parsing and "
        "Text-to-{SQL} Task",
        2018,
        "1809.08887",
    ),
)
_library = partial(
    _task,
    smoke_n=8,
    source="functions of installed libraries, evaluation side, without near copies of the training side",
    license="multiple",
    packages=libraries.PACKAGES,
    date=("2001-01-01", "2026-11-01"),
    **software(
        "libraries",
        f"Developers of {', '.join(libraries.PACKAGES)}",
        "{Python} libraries with their documentation",
        2026,
        "https://pypi.org",
    ),
)

SPECS = (
    _human_eval(
        name="HumanEvalSolutionRetrieval",
        build=programs.description_to_solution,
        description="Find the program that does what a description asks for.",
        weakness="164 short programs in one style; probably in the pretraining data of every language model",
    ),
    _human_eval(
        name="HumanEvalDescriptionRetrieval",
        build=programs.solution_to_description,
        description="Find the description of what a program does.",
        weakness="the mirror image of HumanEvalSolutionRetrieval, with the same texts",
    ),
    _spider(
        name="SpiderSQLRetrieval",
        build=programs.question_to_sql,
        description="Find the SQL query that answers a question.",
        gold="students wrote the SQL of each question; values are masked, and the order of columns does not count",
        weakness="names of tables give the database away; queries that differ in a sign only are not told apart",
    ),
    _spider(
        name="SpiderQuestionRetrieval",
        build=programs.sql_to_question,
        description="Find the questions that a SQL query answers.",
        gold="students wrote the SQL of each question, most often of two",
        weakness="names of tables give the database away; values are masked in SQL and not in questions",
    ),
    _library(
        name="LibraryCodeRetrieval",
        build=libraries.doc_to_code,
        description="Find the source of a function from its documentation.",
        gold="the documentation stands in the function",
        weakness="sources are cut to 400 characters, and long ones are mostly arguments, which documentation names; "
        "training has pairs of the same form from other functions",
    ),
    _library(
        name="LibraryDocumentationRetrieval",
        build=libraries.code_to_doc,
        description="Find the documentation of a function from its source.",
        gold="the documentation stands in the function",
        weakness="sources are cut to 400 characters; some documentation would fit several functions",
    ),
    _library(
        name="CrossLibraryRetrieval",
        build=libraries.code_to_code,
        description="Find the same function in other libraries from its source, all without their names.",
        gold="same name and documentation that agrees, in two libraries; functions of its name whose documentation "
        "does not agree are excluded, and near copies are no answers",
        weakness="names of arguments often agree between libraries; agreement is judged by a quarter of common words",
        languages=("python-Code",),
    ),
    _task(
        name="RuleExampleRetrieval",
        build=programs.rule_to_code,
        smoke_n=8,
        description="Find the examples of code, wrong and right, that illustrate the rule of a linter.",
        source="documentation of ruff's rules: explanations and examples",
        gold="the examples stand in the rule's documentation",
        weakness="explanations can name what stands in the code; code can illustrate further rules",
        license="mit",
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
)
