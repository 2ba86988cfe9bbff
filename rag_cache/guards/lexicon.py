"""Words that the guards know: English ones, of everyday questions.

The lists are short on purpose. A word that is missing costs a hit, since the guard of
substitution refuses what it can't explain; it does not cost a wrong answer. Another language
needs lists of its own; numbers, codes and names are compared in any.
"""

from __future__ import annotations


def words_of(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


STOP = frozenset(
    words_of("""
    a about am an and any are as at be because been being but by can could d did do does
    doing done each either for from get gets getting got had has have having he her here
    hers him his how i if in into is it its just kindly let ll like lot m may me might mine
    more most much many must my myself need of off on or other our ours out over own per re
    s same she should so some such t than that the their them then there these they this
    those through to too under until up upon us ve via want was we were what when where
    which while who whom whose why will with within would you your yours yourself
""")
)
"""Words that carry the form of a sentence. What they may say all the same is looked at by
itself: negation, direction, and opposites."""

FILLERS = frozenset(
    words_of("""
    able accept allow available actually advise afternoon anyone basically best cheers
    currently detail easily er erm evening ever exactly explain find give go going guide
    happen hello help hey hi hiya info information instruction kind know look looking mean
    method morning now obtain oh ok okay option please possible process question quick
    really receive request roughly show silly someone something sorry step still support
    sure take tell thank thanks thing think today try uh um value way well wonder wondering
    work yeah yes advance
""")
)
"""Words that a question can do without."""

IMPLIED = {
    "how much": "cost",
    "when": "time",
    "how long": "time",
    "where": "place",
    "who": "person",
}
"""What question words ask for, as stems."""

NEGATORS = frozenset(
    words_of("""
    ain't arent avoid aren't can't cannot cant couldn't couldnt didn't didnt doesn't doesnt
    don't dont except hadn't hadnt hasn't hasnt haven't havent isn't isnt mustn't mustnt
    neither never no nobody none nor not nothing prevent refuse shouldn't shouldnt stop
    stops stopped unable wasn't wasnt weren't werent without won't wont wouldn't wouldnt
""")
)
"""Words that turn a sentence round."""

PREFIXES = ("un", "non", "in", "im", "ir", "il", "dis", "de", "mis")
"""What turns a word round, put before it."""

_OPPOSITES = """
    on enable activate | off disable deactivate
    include cover contain | exclude exempt omit
    allow permit approve accept legal | ban prohibit forbid decline reject deny illegal refuse
    increase raise high higher bigger larger grow | decrease reduce low lower smaller
    more most maximum | less least fewer fewest minimum
    best good better | worst bad worse
    hot warm | cold freezing cool
    spicy | mild
    add join enrol insert attach | remove delete withdraw leave detach
    benefit advantage upside | drawback downside disadvantage
    open | close shut
    start begin resume continue | stop end pause finish quit cancel
    lock freeze | unlock unfreeze
    deposit | withdraw
    buy purchase | sell
    send | receive
    lend | borrow
    arrive arrival | depart departure
    in into | out
    before | after
    during within | after outside beyond
    early earliest | late latest
    cheap cheapest | expensive dearest
    fast quick | slow
    safe | dangerous unsafe harmful
    show | hide
    login | logout
    import | export
    upload | download
    upgrade | downgrade
    always | never
    all every | none
    win | lose
    pass | fail
    true | false
    old | new
    full | partial empty
    public | private
    free | paid
    credit | debit
    internal | external
    incoming inbound | outgoing outbound
    domestic national | international
    home | abroad overseas
    online | paper offline
    man men male | woman women female
    boy | girl
    buyer | seller
    tenant | landlord
    employer | employee
    single | joint
    single | return
    fix fixed | variable
"""


def _axes() -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
    lines = [line.split("|") for line in _OPPOSITES.strip().splitlines()]
    return tuple((frozenset(one.split()), frozenset(other.split())) for one, other in lines)


OPPOSITES = _axes()
"""Pairs of sides: who asks about one does not ask about the other."""

_SYNONYMS = """
    country city place
    cancel terminate end
    close shut end
    change update alter edit modify amend
    start begin commence
    set create make generate
    reset recover forgot
    buy purchase
    cost price charge fee pay
    apply application
    book reserve schedule reservation booking
    car vehicle
    child children kid
    baby infant
    phone mobile telephone
    doctor gp
    fix repair mend
    return refund
    send email mail
    deliver delivery ship shipping
    register sign
    contact reach speak talk call
    submit make file send
    transfer move
    trip journey
    long time
    holiday vacation
    luggage baggage bag
    flight fly flying
    apartment flat
    street road
    shop store
    subscription plan
    account profile
    password passcode
    delete remove erase
    display view see
    previous earlier former
    last final
    soon fast
    include come
    picture photo image
    problem issue trouble
    broken damaged faulty
    job employment
    salary wage
    worker employee staff
    company business firm
    author write wrote
    atm cashpoint
    dose dosage
    jab vaccine vaccination
    invoice bill
    invite invitation
    turn switch
    disable off
    enable on
    install setup
    connect link
    laptop notebook
    entitled qualify eligible
    check verify confirm
    collect pick
    dispute challenge contest
    steal stolen
    allow permit
    annual yearly
    difference differ
    wait waiting
    instal install
"""


def _groups() -> dict[str, frozenset[int]]:
    of: dict[str, set[int]] = {}
    for number, line in enumerate(_SYNONYMS.strip().splitlines()):
        for word in line.split():
            of.setdefault(word, set()).add(number)
    return {word: frozenset(numbers) for word, numbers in of.items()}


SYNONYMS = _groups()
"""Of each word, the groups it belongs to: within one, words stand for each other."""
