"""docs/faq.md: each question names the threads that it is from, under their numbers."""
import re

from helpers.commands import ROOT


def test_each_question_links_to_threads_by_their_numbers():
    text = (ROOT / 'docs/faq.md').read_text()
    questions = [part for part in text.split('\n\n') if part.startswith('**')]
    assert len(questions) >= 25
    for question in questions:
        threads = re.findall(r'\[[^]]*#(\d+)\]\(https://github\.com/[\w-]+/[\w-]+/'
                             r'(?:issues|pull)/(\d+)\)', question)
        assert threads, question
        assert all(shown == linked for shown, linked in threads), question
