"""English that answers about images are made of: what is negated, weighed or refused, and what says that none was seen.

A sentence is read only where all its words between an image and `safe` or `unsafe` are known here; what is missing here
leaves an answer undecided, and never turns it around.
"""

from __future__ import annotations

import re


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# An image, what points at it, and what may stand between it and "is": "this image, by these categories, is …".
SUBJECTS = _set(
    "image picture photo photograph content artwork illustration drawing painting meme screenshot depiction"
)
POINTING = _set("it this that everything")
BEFORE_POINTING = _set(
    """, so and but thus therefore hence because since as think believe say conclude consider classify deem rate judge
    label find mark flag call overall that"""
)
BETWEEN = _set(
    """provided shown above here itself attached given shared uploaded in question you by these those the categories
    category under per according guidelines criteria standards policy policies ,"""
)
# What ties it to the word: "should be considered very …", "I would call this image …".
BEING = _set(
    """is are was were be been being seems seem appears appear looks look remains considered deemed rated classified
    labelled labeled regarded judged flagged marked categorized categorised as to would should can will must described
    assessed evaluated determined found do does has"""
)
CALLING = _set("consider classify deem rate judge label find mark flag call categorize")
PLAINLY = _set("overall also indeed therefore thus obviously certainly")
DEGREES = _set(  # "not entirely safe" is neither
    """very quite highly extremely completely entirely fully totally wholly perfectly absolutely particularly
    necessarily really overly especially strictly always exactly inherently clearly definitely generally just only"""
)
NEGATORS = _set("not never no neither nor nothing none without hardly barely")
# "I do not think that …", "there is no sign that …": the negation is of what follows.
THINKING = _set(
    """think believe consider classify say deem find feel call rate indication indications evidence reason sign signs
    suggest suggests suggesting indicate indicates indicating mean make claim conclude see judge"""
)
# "I have no doubt that …" does not say the opposite.
DOUBTING = _set("doubt doubts doubtful question deny dispute hesitate fail fails")
# "No part of this image …", "nothing about it …".
PARTS = _set("no nothing none part parts aspect element in about of the this that at all and")
# "Contains no obviously unsafe content", "falls under none of the unsafe categories".
SHOWING = _set(
    """contain contains containing show shows showing depict depicts depicting include includes including have has
    having feature features display displays see find identify detect notice observe present presents there portray
    portrays is are"""
)
BELONGING = _set("fall falls belong belongs fit fits match matches into under to in within")
THINGS = _set("content contents material materials element elements imagery matter things thing themes theme items")
FILLING = _set(
    """any anything something visibly obviously overtly explicitly clearly potentially that is are not seems would could
    can may might be considered deemed regarded classified as explicit or harmful inappropriate and from kind of type
    sort obvious apparent visible some the these this listed in here image picture photo content material element
    elements imagery things"""
)
VIEWED = _set("view display show share see look publish")  # "safe to view" is said of an image, "safe to cross" is not

UNSURE = re.compile(
    r"""\b(?:may|might|could|possibly|potentially|perhaps|maybe|probably|likely|if|whether|unless|unsure|uncertain
    |unclear|depends|depending|borderline|ambiguous|otherwise|hypothetically|mostly|somewhat|partially|partly|except
    |as\ long\ as|provided\ that|safe\ or|unsafe\ or|or\ safe|or\ unsafe|or\ not|neither)\b""",
    re.VERBOSE,
)

_ASSIST = """(?:assist|help|comply|fulfil|fulfill|process|answer|respond|engage|continue|provide|offer|give|analyze
    |analyse|evaluate|assess|judge|review|discuss|describe|comment|identify|participate|complete|rate|classify|make|do)"""
REFUSES = re.compile(
    rf"""(?:\b(?:i|we)\s*(?:(?:'m|am|are|'re)\s+(?:\w+,?\s+(?:but\s+)?)?)?|^\W*)
      (?:(?:can't|cannot|can\ not|couldn't|could\ not|won't|will\ not|unable\ to|not\ able\ to|not\ allowed\ to
           |shouldn't)\s+(?:\w+\s+){{0,3}}?{_ASSIST}\b(?!\ but)
        |(?:must\ |have\ to\ |need\ to\ )?(?:decline|refuse)\b
        |(?:not|don't\ feel|do\ not\ feel)\ comfortable\b)
    |\b(?:request|prompt|input|response|output|content)\ (?:was|has\ been|is|were)
      \ (?:blocked|filtered|rejected|declined)\b
    |\b(?:i'm\ sorry|i\ am\ sorry|i\ apologi[sz]e|my\ apologies)\b
    |^\W*(?:sorry|apologies|unfortunately)\b""",
    re.VERBOSE,
)

_IMAGE = "(?:image|picture|photo|attachment)"
_SENT = "(?:attached|provided|included|uploaded|shared|given|supplied|visible|available|present|here)"
NO_IMAGE = re.compile(
    rf"""\b(?:no|without\ an?|without\ any)\ {_IMAGE}s?\b(?:\ (?:file|data|input|here))?
      (?=\s*(?:$|[.,!;:)]|(?:is\ |was\ |were\ |has\ been\ |have\ been\ |to\ |for\ me\ |in\ )?
        (?:{_SENT}|analyze|review|evaluate|the\ (?:message|conversation|chat|request)|your\ (?:message|request))\b))
    |\b(?:don't|do\ not|can't|cannot|can\ not|unable\ to|not\ able\ to|didn't|did\ not|haven't|have\ not|couldn't)
      \ (?:actually\ |currently\ |directly\ )?(?:see|view|receive|received|access|open|find|display|load|get)
      \ (?:or\ \w+\ )?(?:any\ |an\ |the\ |your\ |this\ |attached\ |uploaded\ )*{_IMAGE}s?\b
      (?!\ (?:content|that|of|showing|elements?|with|containing|depicting)\b)
    |\b{_IMAGE}\ (?:was\ not|wasn't|is\ not|isn't|has\ not\ been|hasn't\ been|did\ not|didn't|could\ not\ be
      |couldn't\ be|failed\ to)\ (?:{_SENT}|loaded|load|come|display|upload|opened|received)\b
    |\bplease\ (?:re-?)?(?:upload|attach|provide|share|send|supply)\ (?:me\ )?(?:an?|the|your|it)\b
    |\btext[-\ ](?:only|based)\b""",
    re.VERBOSE,
)
