"""Django's makemessages, which also collects the help texts of training parameters (`modelzoo.config.param`)."""

from django.core.management.commands import makemessages


class Command(makemessages.Command):
    xgettext_options = [*makemessages.Command.xgettext_options, "--keyword=param:2"]
