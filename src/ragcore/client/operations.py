"""Everything that can be asked of the service, in one class."""

from ragcore.client.access import Access
from ragcore.client.collections import Collections
from ragcore.client.documents import Documents
from ragcore.client.intake import Intake
from ragcore.client.jobs import Jobs
from ragcore.client.questions import Questions
from ragcore.client.service import Service


class Operations(Intake, Jobs, Questions, Documents, Collections, Access, Service):
    """Each operation once, as steps without I/O; the clients run them."""
