"""Questions: passages, and answers made of them."""

from fastapi import APIRouter

from ragcore.errors import CollectionNotFound, InvalidFilter, Unavailable
from ragcore_api.deps import RagDep
from ragcore_api.errors import problems
from ragcore_api.schemas.questions import AnswerOut, QueryIn, SearchIn, SearchOut

router = APIRouter(tags=["questions"])
_PROBLEMS = problems(CollectionNotFound, InvalidFilter, Unavailable)


@router.post("/search", responses=_PROBLEMS)
async def search(question: SearchIn, rag: RagDep) -> SearchOut:
    """Find the passages that fit a question; nothing is generated."""
    result = await rag.search(
        question.question,
        collection=question.collection,
        top_k=question.top_k,
        mode=question.mode,
        filters=question.filters,
        explain=question.explain,
    )
    return SearchOut.of(result)


@router.post("/query", responses=_PROBLEMS)
async def query(question: QueryIn, rag: RagDep) -> AnswerOut:
    """Answer a question from the documents, citing the passages used."""
    answer = await rag.ask(
        question.question,
        collection=question.collection,
        top_k=question.top_k,
        mode=question.mode,
        filters=question.filters,
        explain=question.explain,
        generate=question.generate,
    )
    return AnswerOut.of(answer)
