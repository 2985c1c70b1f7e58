# Autobahn's test suite as a client: python2.7 wstest.py SITE -m fuzzingclient -s SPEC
import site
import sys

site.addsitedir(sys.argv.pop(1))
from autobahntestsuite.wstest import run  # noqa: E402

run()
